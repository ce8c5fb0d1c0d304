"""Drafts against a fake model with a known text: passes for each error of the draft, and when a draft gives up."""

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import cast

import pytest
import torch
from support import INSTRUCTION
from torch import Tensor
from transformers import AutoTokenizer
from transformers import PreTrainedTokenizerBase as Tokenizer

from finetune.inference.decode import DecodedRow, decode
from finetune.inference.draft import MATCH_PRIOR, RESUME_PRIOR, Draft, text_draft, token_text
from finetune.inference.draft_sources import ctc_drafts, prompt_lookup
from finetune.inference.session import Session
from finetune.model.ctc import KATAKANA, LATIN, NUM_LABELS
from finetune.model.granite import EncodedAudio, SpeechModel
from finetune.model.prompt import encode_text, render

TEXT = "the children went to the airport this morning and we waited for the train to the garden"
OTHER = "please do not ask why now"
LIMIT = 100


@pytest.fixture(scope="module")
def tokenizer(nano: Path) -> Tokenizer:
    return AutoTokenizer.from_pretrained(nano)


class FakeModel:
    """A model and session in one, with a known text for each row and other likely tokens at each position.

    It counts the tokens that each row reads and forgets, and predicts by this count. A token that is read twice or
    forgotten wrongly therefore changes the output.
    """

    device = torch.device("cpu")

    def __init__(
        self,
        tokenizer: Tokenizer,
        texts: list[str],
        likely: dict[int, float] | None = None,
        after_end: Sequence[int] = (),
    ) -> None:
        """`after_end` are the tokens that the model predicts after the end of text."""
        self.tokenizer, self.likely = tokenizer, likely or {}
        end = [cast(int, tokenizer.eos_token_id), *after_end]
        self.rows = [[*encode_text(tokenizer, text), *end] for text in texts]
        self.lengths = [0] * len(texts)
        self.widths: list[list[int]] = []

    def read(self, rows: list[list[int]], audio: EncodedAudio | None) -> Tensor:
        hidden = []
        for index, tokens in enumerate(rows):
            for _ in tokens:
                position = self.lengths[index] - 1  # the prompt has two tokens
                self.lengths[index] += 1
                scores = torch.full((len(self.tokenizer),), -30.0)
                for token, prob in self.likely.items():
                    scores[token] = math.log(prob)
                scores[self.rows[index][min(max(position, 0), len(self.rows[index]) - 1)]] = 0.0
                hidden.append(scores)
        self.widths.append([len(tokens) for tokens in rows])
        return torch.stack(hidden)

    def logits(self, hidden: Tensor) -> Tensor:
        return hidden

    def forget(self, row: int, count: int) -> None:
        self.lengths[row] -= count

    def select(self, rows: list[int]) -> None:
        self.lengths = [self.lengths[row] for row in rows]
        self.rows = [self.rows[row] for row in rows]


Run = Callable[..., list[DecodedRow]]


@pytest.fixture
def run(tokenizer: Tokenizer) -> Run:
    def decode_texts(
        texts: list[str],
        drafts: list[Draft],
        limit: int = LIMIT,
        min_probability: float | None = None,
        likely: dict[int, float] | None = None,
        fakes: list[FakeModel] | None = None,
        pass_cost: float = 10_000,
        after_end: Sequence[int] = (),
    ) -> list[DecodedRow]:
        fake = FakeModel(tokenizer, texts, likely, after_end)
        if fakes is not None:
            fakes.append(fake)
        return decode(
            cast(SpeechModel, fake),
            cast(EncodedAudio, None),
            [[5, 6] for _ in texts],
            drafts,
            limit,
            min_probability,
            session=cast(Session, fake),
            pass_cost=pass_cost,
        )

    return decode_texts


def certain_draft(tokenizer: Tokenizer, text: str, phrases: list[list[int]] | None = None) -> Draft:
    return text_draft(tokenizer, text, [1.0] * len(text), phrases)


@pytest.mark.parametrize(
    ("draft", "passes"),
    [
        (TEXT, 1),
        (TEXT + " now", 1),
        (TEXT.replace("went", "want"), 2),
        (TEXT.replace("this", "these"), 2),
        (TEXT.replace("this ", ""), 2),
        (TEXT.replace("the airport", "theairport"), 2),
        (TEXT.replace("airport", "air port"), 3),  # " airport" has four tokens
        (TEXT.replace("children", "childern"), 2),
        (TEXT.removeprefix("the "), 3),
        ("a " + TEXT.removeprefix("the "), 2),
        (TEXT.replace("this", "under"), 3),  # so different that it aligns as an insertion or a substitution
        (TEXT.replace("went", "want").replace("waited for", "waited four").replace("train", "rain"), 4),
        ("", 29),
        (OTHER, 29),
    ],
)
def test_passes_for_each_error_of_the_draft(tokenizer: Tokenizer, run: Run, draft: str, passes: int) -> None:
    (out,) = run([TEXT], [certain_draft(tokenizer, draft)])
    assert tokenizer.decode(out.tokens) == TEXT
    assert out.passes == passes
    assert not out.truncated


def test_inserted_word_costs_at_most_the_next_word(tokenizer: Tokenizer, run: Run) -> None:
    (out,) = run([TEXT], [certain_draft(tokenizer, TEXT.replace("this", "this very"))])
    assert out.passes <= 1 + len(encode_text(tokenizer, " morning"))


def test_missing_phrase_costs_its_own_tokens(tokenizer: Tokenizer, run: Run) -> None:
    (out,) = run([TEXT], [certain_draft(tokenizer, TEXT.replace(" this morning", ""))])
    assert out.passes <= 2 + len(encode_text(tokenizer, " this morning"))


def test_case_and_punctuation_keep_the_draft(tokenizer: Tokenizer, run: Run) -> None:
    written = "we waited, and waited. Then the train went to the garden"
    (out,) = run([written], [certain_draft(tokenizer, "we waited and waited then the train went to the garden")])
    assert tokenizer.decode(out.tokens) == written
    assert out.passes <= 5


def test_rows_of_a_batch_take_the_passes_of_single_rows(tokenizer: Tokenizer, run: Run) -> None:
    """Each row takes as many passes as alone, and is not read after its last pass."""
    texts = [TEXT, OTHER, TEXT, "yes", ""]
    drafts = [TEXT, OTHER.replace("why", "while"), "", "yes", "no"]
    fakes: list[FakeModel] = []
    rows = run(texts, [certain_draft(tokenizer, draft) for draft in drafts], fakes=fakes)
    assert [tokenizer.decode(row.tokens) for row in rows] == texts
    assert [row.passes for row in rows] == [
        run([text], [certain_draft(tokenizer, draft)])[0].passes for text, draft in zip(texts, drafts, strict=True)
    ]
    assert [len(widths) for widths in fakes[0].widths] == [
        sum(row.passes > n for row in rows) for n in range(max(row.passes for row in rows))
    ]


def test_draft_is_cut_at_the_end_of_text_and_at_the_limit(tokenizer: Tokenizer, run: Run) -> None:
    """First the model ends in the middle of the draft, then the limit does."""
    text = TEXT.partition(" and")[0]
    (out,) = run([text], [certain_draft(tokenizer, TEXT)])
    assert (tokenizer.decode(out.tokens), out.passes, out.truncated) == (text, 1, False)
    (limited,) = run([TEXT], [certain_draft(tokenizer, TEXT)], limit=4)
    assert (len(limited.tokens), limited.truncated, limited.drafted, limited.accepted) == (4, True, 3, 3)


@pytest.mark.parametrize("min_probability", [None, 0.2])
def test_accepted_draft_is_cut_at_an_end_of_text_inside(
    tokenizer: Tokenizer, run: Run, min_probability: float | None
) -> None:
    """The draft contains the end of text, and the model predicts the draft's tokens after it too."""
    text, more = encode_text(tokenizer, OTHER), encode_text(tokenizer, " and then more")
    tokens = [*text, cast(int, tokenizer.eos_token_id), *more]
    draft = Draft(tokenizer, tokens, [1.0] * len(tokens))
    (out,) = run([OTHER], [draft], min_probability=min_probability, after_end=more)
    assert (out.tokens, out.passes, out.truncated) == (text, 1, False)
    assert (out.drafted, out.accepted) == (len(tokens), len(text))


def test_only_probable_tokens_are_proposed_in_a_large_batch(tokenizer: Tokenizer, run: Run) -> None:
    """A single row proposes uncertain tokens; in 32 rows they would cost more than they save."""
    doubts = text_draft(tokenizer, TEXT, [0.5] * len(TEXT))
    assert run([TEXT], [doubts])[0].drafted > 0
    rows = run([TEXT] * 32, [text_draft(tokenizer, TEXT, [0.5] * len(TEXT)) for _ in range(32)], pass_cost=0)
    assert {row.drafted for row in rows} == {0}
    fakes: list[FakeModel] = []
    run([TEXT] * 32, [certain_draft(tokenizer, TEXT) for _ in range(32)], fakes=fakes, pass_cost=0)
    assert 1 < max(max(widths) for widths in fakes[0].widths) < 20


def test_draft_that_is_always_refused_gives_up(tokenizer: Tokenizer, run: Run) -> None:
    drafts = [
        certain_draft(tokenizer, text) for text in ("nothing of all that is so at all here over there", *[""] * 15)
    ]
    rows = run([TEXT] * 16, drafts, pass_cost=0)
    assert [draft.gave_up for draft in drafts] == [True, *[False] * 15]
    assert 0 < rows[0].drafted < 10
    assert rows[0].passes == 29


def test_acceptance_rate_counts_decided_tokens(tokenizer: Tokenizer) -> None:
    draft = certain_draft(tokenizer, TEXT)
    assert draft.propose(99, MATCH_PRIOR[0] / MATCH_PRIOR[1] + 0.01) == [] and draft.gave_up
    proposal = draft.propose(99, 1e-9)
    assert proposal == encode_text(tokenizer, TEXT)
    draft.observe(2, [*proposal[:2], 9])  # two accepted, one refused, the others undecided
    match_rate = (MATCH_PRIOR[0] + 2) / (MATCH_PRIOR[1] + 3)
    assert draft.propose(99, match_rate + 0.01) == []


def test_first_token_after_a_mismatch_has_its_own_acceptance_rate(tokenizer: Tokenizer) -> None:
    """It is accepted less often than other tokens, and its refusal does not lower their rate."""
    draft = certain_draft(tokenizer, TEXT)
    (the, *_), (wrong,) = draft.propose(99, 1e-9), encode_text(tokenizer, " she")
    draft.observe(1, [the, wrong])
    match_rate, resume_rate = (MATCH_PRIOR[0] + 1) / (MATCH_PRIOR[1] + 2), RESUME_PRIOR[0] / RESUME_PRIOR[1]
    assert draft.propose(99, resume_rate + 0.01) == [] and draft.gave_up
    assert len(draft.propose(99, resume_rate * match_rate - 0.01)) == 2
    draft.observe(0, [wrong])
    resume_rate = RESUME_PRIOR[0] / (RESUME_PRIOR[1] + 1)
    assert draft.propose(99, resume_rate + 0.01) == []
    assert len(draft.propose(99, resume_rate * match_rate - 0.01)) == 2


def test_rest_of_a_refused_token_is_not_proposed(tokenizer: Tokenizer) -> None:
    """The model wrote only the beginning of the token, so it refused the remainder."""
    draft = certain_draft(tokenizer, TEXT)
    the, children, *_ = draft.propose(99, 1e-9)
    (prefix,) = encode_text(tokenizer, " c")
    assert token_text(tokenizer, children) == " children"
    draft.observe(1, [the, prefix])
    assert draft.propose(99, 1e-9) == []
    draft.observe(0, encode_text(tokenizer, "h"))
    assert draft.propose(99, 1e-9) != []


# --- relaxed ---


def test_relaxed_accepts_probable_draft_tokens(tokenizer: Tokenizer, run: Run) -> None:
    draft = TEXT.replace("went", "want").replace("this", "these")
    want, these = encode_text(tokenizer, " want")[0], encode_text(tokenizer, " these")[0]
    likely = {want: 0.3, these: 0.05}
    (strict,) = run([TEXT], [certain_draft(tokenizer, draft)], likely=likely)
    assert (tokenizer.decode(strict.tokens), strict.passes) == (TEXT, 3)
    (relaxed,) = run([TEXT], [certain_draft(tokenizer, draft)], likely=likely, min_probability=0.2)
    assert (tokenizer.decode(relaxed.tokens), relaxed.passes) == (TEXT.replace("went", "want"), 2)
    assert relaxed.log_probability < strict.log_probability
    (freer,) = run([TEXT], [certain_draft(tokenizer, draft)], likely=likely, min_probability=0.01)
    assert (tokenizer.decode(freer.tokens), freer.passes) == (draft, 1)


def test_relaxed_keeps_the_end_of_text_of_the_model(tokenizer: Tokenizer, run: Run) -> None:
    """The model continues a draft that is too short, and cuts one that is too long."""
    (short,) = run([TEXT], [certain_draft(tokenizer, TEXT.partition(" and")[0])], min_probability=0.2)
    assert tokenizer.decode(short.tokens) == TEXT
    (long,) = run([TEXT.partition(" and")[0]], [certain_draft(tokenizer, TEXT)], min_probability=0.2)
    assert tokenizer.decode(long.tokens) == TEXT.partition(" and")[0]


def test_relaxed_takes_the_token_of_the_model_after_the_draft(tokenizer: Tokenizer, run: Run) -> None:
    """No draft token follows the last proposed one, so a probable token 0 is not mistaken for an accepted one."""
    draft = certain_draft(tokenizer, TEXT.partition(" and")[0])
    (out,) = run([TEXT], [draft], likely={0: 0.5}, min_probability=0.2)
    assert out.tokens == encode_text(tokenizer, TEXT)


# --- sources ---


def test_keywords_complete_a_word(tokenizer: Tokenizer, run: Run) -> None:
    """Keywords save passes without a draft, and a wrong keyword changes no token."""
    text = "was there any clopidogrel in the bag"
    words = [encode_text(tokenizer, f" {word}") for word in ("clopidogrel", "clofibrate")]
    (plain,) = run([text], [certain_draft(tokenizer, "")])
    (helped,) = run([text], [certain_draft(tokenizer, "", words)])
    (hindered,) = run([text], [certain_draft(tokenizer, "", words[1:])])
    assert plain.tokens == helped.tokens == hindered.tokens
    assert helped.passes < plain.passes == hindered.passes


def test_prompt_lookup_uses_phrases_then_the_written_text() -> None:
    assert prompt_lookup([1, 2, 7, 8], 2, [[7, 9], [7, 8, 4, 5]]) == [4, 5]
    assert prompt_lookup([1, 2, 3, 4, 9, 1, 2, 3], 8, []) == [4, 9, 1, 2, 3]
    assert prompt_lookup([1, 2, 3, 4, 9, 2, 3], 5, [[2, 3]]) == []
    assert prompt_lookup([], 0, [[1]]) == []


def test_text_draft_has_the_tokens_of_a_transcript(tokenizer: Tokenizer) -> None:
    text = "colchicine in the morning"
    draft = text_draft(tokenizer, text, [0.5 if index == text.index("m") else 1.0 for index in range(len(text))])
    assert draft.tokens == encode_text(tokenizer, text)
    assert (
        tokenizer.decode(draft.propose(99, 0.5)) == "colchicine in the"
    )  # the word with improbable letters is omitted
    assert certain_draft(tokenizer, "").propose(99, 0.0) == []


def test_mostly_katakana_text_is_no_draft() -> None:
    """The CTC head transcribes Japanese as katakana, which is no draft. Padded frames are ignored."""

    def path(text: str) -> list[int]:
        return [ord(char) if ord(char) < LATIN else LATIN + ord(char) - KATAKANA for char in text]

    rows = [path("カキク ケコ abc"), path("a nice ボ kay go")]
    labels = torch.zeros(2, 20, dtype=torch.long)
    for row, text_labels in zip(labels, rows, strict=True):
        row[: len(text_labels)] = torch.tensor(text_labels)
    labels[0, 16:] = ord("x")
    texts = ctc_drafts(5 * torch.nn.functional.one_hot(labels, NUM_LABELS).float(), [16, 20])
    assert texts[0] == ("", [])
    assert texts[1][0] == "a nice ボ kay go"
    assert len(texts[1][1]) == len(texts[1][0]) and all(0 < prob < 1 for prob in texts[1][1])
    assert ctc_drafts(torch.zeros(1, 0, NUM_LABELS), [0]) == [("", [])]


def test_keyword_tokens_in_the_prompt_equal_those_of_the_lookup(tokenizer: Tokenizer) -> None:
    prompt = render(tokenizer, INSTRUCTION, ("clopidogrel",))
    tokens = encode_text(tokenizer, " clopidogrel")
    assert any(list(prompt.suffix[i : i + len(tokens)]) == tokens for i in range(len(prompt.suffix)))
