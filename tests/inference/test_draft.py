"""Drafts against language models that write a known text: what a fault of the draft costs, and who gives up."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import cast

import pytest
import torch
from support import INSTRUCTION
from torch import Tensor
from transformers import AutoTokenizer
from transformers import PreTrainedTokenizerBase as Tokenizer

from finetune.inference import decode as module
from finetune.inference.decode import Decoded, decode
from finetune.inference.draft import AFRESH, ALONG, Draft, piece, text_draft
from finetune.inference.draft_sources import ctc_texts, look_up
from finetune.model.ctc import KATAKANA, LATIN, NUM_LABELS
from finetune.model.granite import EncodedAudio, GraniteSpeech
from finetune.model.prompt import encode_text, render

SAID = "the children went to the airport this morning and we waited for the train to the garden"
OTHER = "please do not ask why now"
LIMIT = 100


@pytest.fixture(scope="module")
def tokenizer(nano: Path) -> Tokenizer:
    return AutoTokenizer.from_pretrained(nano)


class Table:
    """In place of a model and its session: row by row a known text, and at each place other tokens it finds likely.

    It answers by its own count of what it was fed and made to forget, so tokens fed twice or forgotten wrongly show.
    """

    device = torch.device("cpu")

    def __init__(self, tokenizer: Tokenizer, texts: list[str], likely: dict[int, float] | None = None) -> None:
        self.tokenizer, self.likely = tokenizer, likely or {}
        self.rows = [[*encode_text(tokenizer, text), cast(int, tokenizer.eos_token_id)] for text in texts]
        self.read_so_far = [0] * len(texts)
        self.widths: list[list[int]] = []

    def session(self, *_: object) -> "Table":
        return self

    def read(self, rows: list[list[int]], audio: EncodedAudio | None) -> Tensor:
        found = []
        for index, fed in enumerate(rows):
            for _ in fed:
                place = self.read_so_far[index] - 1  # the prompt is two tokens long
                self.read_so_far[index] += 1
                scores = torch.full((len(self.tokenizer),), -30.0)
                for token, chance in self.likely.items():
                    scores[token] = math.log(chance)
                scores[self.rows[index][min(max(place, 0), len(self.rows[index]) - 1)]] = 0.0
                found.append(scores)
        self.widths.append([len(fed) for fed in rows])
        return torch.stack(found)

    def logits(self, hidden: Tensor) -> Tensor:
        return hidden

    def forget(self, row: int, count: int) -> None:
        self.read_so_far[row] -= count

    def select(self, rows: list[int]) -> None:
        self.read_so_far = [self.read_so_far[row] for row in rows]
        self.rows = [self.rows[row] for row in rows]


Run = Callable[..., list[Decoded]]


@pytest.fixture
def run(tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> Run:
    def decoded(
        texts: list[str],
        drafts: list[Draft],
        limit: int = LIMIT,
        plausible: float | None = None,
        likely: dict[int, float] | None = None,
        tables: list[Table] | None = None,
        free: int = 10_000,
    ) -> list[Decoded]:
        table = Table(tokenizer, texts, likely)
        if tables is not None:
            tables.append(table)
        monkeypatch.setattr(module, "Session", table.session)
        monkeypatch.setitem(module.FREE_TOKENS, "cpu", free)
        return decode(
            cast(GraniteSpeech, table), cast(EncodedAudio, None), [[5, 6] for _ in texts], drafts, limit, plausible
        )

    return decoded


def sure(tokenizer: Tokenizer, text: str, phrases: list[list[int]] | None = None) -> Draft:
    return text_draft(tokenizer, text, [1.0] * len(text), phrases)


@pytest.mark.parametrize(
    ("draft", "passes"),
    [
        (SAID, 1),
        (SAID + " now", 1),
        (SAID.replace("went", "want"), 2),
        (SAID.replace("this", "these"), 2),
        (SAID.replace("this ", ""), 2),
        (SAID.replace("the airport", "theairport"), 2),
        (SAID.replace("airport", "air port"), 3),  # the model's airport has four tokens
        (SAID.replace("children", "childern"), 2),
        (SAID.removeprefix("the "), 3),
        ("a " + SAID.removeprefix("the "), 2),
        (SAID.replace("this", "under"), 3),  # so unlike that it may stand beside what was said as well as for it
        (SAID.replace("went", "want").replace("waited for", "waited four").replace("train", "rain"), 4),
        ("", 29),
        (OTHER, 29),
    ],
)
def test_a_fault_costs_about_a_pass(tokenizer: Tokenizer, run: Run, draft: str, passes: int) -> None:
    (out,) = run([SAID], [sure(tokenizer, draft)])
    assert tokenizer.decode(out.tokens) == SAID
    assert out.passes == passes
    assert not out.truncated


def test_a_word_too_many_costs_no_more_than_the_models_own_words(tokenizer: Tokenizer, run: Run) -> None:
    (out,) = run([SAID], [sure(tokenizer, SAID.replace("this", "this very"))])
    assert out.passes <= 1 + len(encode_text(tokenizer, " morning"))


def test_a_missing_phrase_costs_its_tokens_and_not_the_rest(tokenizer: Tokenizer, run: Run) -> None:
    (out,) = run([SAID], [sure(tokenizer, SAID.replace(" this morning", ""))])
    assert out.passes <= 2 + len(encode_text(tokenizer, " this morning"))


def test_letter_case_and_punctuation_do_not_lose_the_draft(tokenizer: Tokenizer, run: Run) -> None:
    written = "we waited, and waited. Then the train went to the garden"
    (out,) = run([written], [sure(tokenizer, "we waited and waited then the train went to the garden")])
    assert tokenizer.decode(out.tokens) == written
    assert out.passes <= 5


def test_rows_of_a_batch_agree_each_at_its_own_speed(tokenizer: Tokenizer, run: Run) -> None:
    """Each row takes the passes that it takes alone, and is not fed after its last."""
    texts = [SAID, OTHER, SAID, "yes", ""]
    drafts = [SAID, OTHER.replace("why", "while"), "", "yes", "no"]
    tables: list[Table] = []
    rows = run(texts, [sure(tokenizer, draft) for draft in drafts], tables=tables)
    assert [tokenizer.decode(row.tokens) for row in rows] == texts
    assert [row.passes for row in rows] == [
        run([text], [sure(tokenizer, draft)])[0].passes for text, draft in zip(texts, drafts, strict=True)
    ]
    assert [len(widths) for widths in tables[0].widths] == [
        sum(row.passes > n for row in rows) for n in range(max(row.passes for row in rows))
    ]


def test_a_draft_without_an_end_meets_the_end_of_text(tokenizer: Tokenizer, run: Run) -> None:
    """The model ends in the middle of the draft; then the limit does."""
    text = SAID.partition(" and")[0]
    (out,) = run([text], [sure(tokenizer, SAID)])
    assert (tokenizer.decode(out.tokens), out.passes, out.truncated) == (text, 1, False)
    (cut,) = run([SAID], [sure(tokenizer, SAID)], limit=4)
    assert (len(cut.tokens), cut.truncated, cut.drafted, cut.accepted) == (4, True, 3, 3)


def test_only_likely_tokens_are_offered_where_a_pass_is_full(tokenizer: Tokenizer, run: Run) -> None:
    """Alone, a doubtful draft is tried; among 32 rows its tokens would cost more than they bring."""
    doubts = text_draft(tokenizer, SAID, [0.5] * len(SAID))
    assert run([SAID], [doubts])[0].drafted > 0
    rows = run([SAID] * 32, [text_draft(tokenizer, SAID, [0.5] * len(SAID)) for _ in range(32)], free=0)
    assert {row.drafted for row in rows} == {0}
    tables: list[Table] = []
    run([SAID] * 32, [sure(tokenizer, SAID) for _ in range(32)], tables=tables, free=0)
    assert 1 < max(max(widths) for widths in tables[0].widths) < 20


def test_a_draft_that_is_refused_and_refused_is_given_up_and_says_so(tokenizer: Tokenizer, run: Run) -> None:
    drafts = [sure(tokenizer, text) for text in ("nothing of all that is so at all here over there", *[""] * 15)]
    rows = run([SAID] * 16, drafts, free=0)
    assert [draft.gave_up for draft in drafts] == [True, *[False] * 15]
    assert 0 < rows[0].drafted < 10
    assert rows[0].passes == 29


def test_trust_is_the_share_of_decided_tokens(tokenizer: Tokenizer) -> None:
    draft = sure(tokenizer, SAID)
    assert draft.propose(99, ALONG[0] / ALONG[1] + 0.01) == [] and draft.gave_up
    offered = draft.propose(99, 1e-9)
    assert offered == encode_text(tokenizer, SAID)
    draft.observe(2, [*offered[:2], 9])  # two right, one wrong, the rest of them never decided
    along = (ALONG[0] + 2) / (ALONG[1] + 3)
    assert draft.propose(99, along + 0.01) == []


def test_the_first_token_after_a_fault_is_trusted_by_itself(tokenizer: Tokenizer) -> None:
    """It is right less often than the others, and where it is wrong they lose no trust."""
    draft = sure(tokenizer, SAID)
    (the, *_), (wrong,) = draft.propose(99, 1e-9), encode_text(tokenizer, " she")
    draft.observe(1, [the, wrong])
    along, afresh = (ALONG[0] + 1) / (ALONG[1] + 2), AFRESH[0] / AFRESH[1]
    assert draft.propose(99, afresh + 0.01) == [] and draft.gave_up
    assert len(draft.propose(99, afresh * along - 0.01)) == 2
    draft.observe(0, [wrong])
    afresh = AFRESH[0] / (AFRESH[1] + 1)
    assert draft.propose(99, afresh + 0.01) == []
    assert len(draft.propose(99, afresh * along - 0.01)) == 2


def test_a_refused_token_is_not_offered_in_pieces(tokenizer: Tokenizer) -> None:
    """The model wrote a beginning of it: so it is the rest that it refused."""
    draft = sure(tokenizer, SAID)
    the, children, *_ = draft.propose(99, 1e-9)
    (begun,) = encode_text(tokenizer, " c")
    assert piece(tokenizer, children) == " children"
    draft.observe(1, [the, begun])
    assert draft.propose(99, 1e-9) == []
    draft.observe(0, encode_text(tokenizer, "h"))
    assert draft.propose(99, 1e-9) != []


# --- relaxed ---


def test_relaxed_keeps_what_is_likely_enough_and_goes_on_from_there(tokenizer: Tokenizer, run: Run) -> None:
    draft = SAID.replace("went", "want").replace("this", "these")
    want, these = encode_text(tokenizer, " want")[0], encode_text(tokenizer, " these")[0]
    likely = {want: 0.3, these: 0.05}
    (strict,) = run([SAID], [sure(tokenizer, draft)], likely=likely)
    assert (tokenizer.decode(strict.tokens), strict.passes) == (SAID, 3)
    (relaxed,) = run([SAID], [sure(tokenizer, draft)], likely=likely, plausible=0.2)
    assert (tokenizer.decode(relaxed.tokens), relaxed.passes) == (SAID.replace("went", "want"), 2)
    assert relaxed.log_probability < strict.log_probability
    (freer,) = run([SAID], [sure(tokenizer, draft)], likely=likely, plausible=0.01)
    assert (tokenizer.decode(freer.tokens), freer.passes) == (draft, 1)


def test_relaxed_asks_for_the_end_of_text(tokenizer: Tokenizer, run: Run) -> None:
    """A draft that stops too early is gone on with; one that goes on too long stops where the model does."""
    (short,) = run([SAID], [sure(tokenizer, SAID.partition(" and")[0])], plausible=0.2)
    assert tokenizer.decode(short.tokens) == SAID
    (long,) = run([SAID.partition(" and")[0]], [sure(tokenizer, SAID)], plausible=0.2)
    assert tokenizer.decode(long.tokens) == SAID.partition(" and")[0]


# --- sources ---


def test_expected_words_finish_what_is_begun(tokenizer: Tokenizer, run: Run) -> None:
    """The prompt's keywords help where the draft knows nothing, and a wrong keyword changes no token."""
    said = "was there any clopidogrel in the bag"
    words = [encode_text(tokenizer, f" {word}") for word in ("clopidogrel", "clofibrate")]
    (plain,) = run([said], [sure(tokenizer, "")])
    (helped,) = run([said], [sure(tokenizer, "", words)])
    (hindered,) = run([said], [sure(tokenizer, "", words[1:])])
    assert plain.tokens == helped.tokens == hindered.tokens
    assert helped.passes < plain.passes == hindered.passes


def test_look_up_follows_words_then_the_text_itself() -> None:
    assert look_up([1, 2, 7, 8], 2, [[7, 9], [7, 8, 4, 5]]) == [4, 5]
    assert look_up([1, 2, 3, 4, 9, 1, 2, 3], 8, []) == [4, 9, 1, 2, 3]
    assert look_up([1, 2, 3, 4, 9, 2, 3], 5, [[2, 3]]) == []
    assert look_up([], 0, [[1]]) == []


def test_a_draft_of_text_is_as_the_model_writes_it(tokenizer: Tokenizer) -> None:
    text = "colchicine in the morning"
    draft = text_draft(tokenizer, text, [0.5 if index == text.index("m") else 1.0 for index in range(len(text))])
    assert draft.tokens == encode_text(tokenizer, text)
    assert tokenizer.decode(draft.propose(99, 0.5)) == "colchicine in the"  # a word of doubtful letters is left out
    assert sure(tokenizer, "").propose(99, 0.0) == []


def test_the_ctc_head_has_no_script_for_japanese() -> None:
    """Its katakana stand for sounds: no draft. Real frames alone count."""

    def path(text: str) -> list[int]:
        return [ord(char) if ord(char) < LATIN else LATIN + ord(char) - KATAKANA for char in text]

    rows = [path("カキク ケコ abc"), path("a nice ボ kay go")]
    labels = torch.zeros(2, 20, dtype=torch.long)
    for row, found in zip(labels, rows, strict=True):
        row[: len(found)] = torch.tensor(found)
    labels[0, 16:] = ord("x")
    texts = ctc_texts(5 * torch.nn.functional.one_hot(labels, NUM_LABELS).float(), [16, 20])
    assert texts[0] == ("", [])
    assert texts[1][0] == "a nice ボ kay go"
    assert len(texts[1][1]) == len(texts[1][0]) and all(0 < chance < 1 for chance in texts[1][1])
    assert ctc_texts(torch.zeros(1, 0, NUM_LABELS), [0]) == [("", [])]


def test_keywords_stand_in_the_prompt_as_they_are_looked_up(tokenizer: Tokenizer) -> None:
    prompt = render(tokenizer, INSTRUCTION, ("clopidogrel",))
    wanted = encode_text(tokenizer, " clopidogrel")
    assert any(list(prompt.suffix[i : i + len(wanted)]) == wanted for i in range(len(prompt.suffix)))
