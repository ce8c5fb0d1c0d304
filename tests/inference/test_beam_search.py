"""Beam search finds the texts of transformers' `generate`; the CTC head chooses among them."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from support import INSTRUCTION, encoded_noise, randomize

from finetune.core.errors import RecipeError
from finetune.core.options import DecodingOptions
from finetune.inference import beam_search as module
from finetune.inference.beam_choice import choose
from finetune.inference.beam_search import Beam, Search, beam_search
from finetune.inference.keyword_biasing import keyword_bonus
from finetune.inference.recognize import recognize
from finetune.metrics.wer import score
from finetune.model.granite import EncodedAudio, SpeechModel
from finetune.model.prompt import render
from tests.conftest import embedded
from tests.inference.test_word_times import log_probs

FRAMES = [40, 200, 83, 130]
LIMIT = 12


@pytest.fixture(scope="module")
def granite(model: Callable[[], SpeechModel]) -> SpeechModel:
    return randomize(model(), end=1.6)


@pytest.fixture(scope="module")
def audio(granite: SpeechModel) -> EncodedAudio:
    return encoded_noise(granite, FRAMES)


@pytest.fixture(scope="module")
def prompts(granite: SpeechModel, audio: EncodedAudio) -> list[list[int]]:
    prompt = render(granite.tokenizer, INSTRUCTION, (), granite.profile)
    return [prompt.around(granite.audio_token_id, count) for count in audio.num_tokens.tolist()]


def generate(granite: SpeechModel, audio: EncodedAudio, prompt: list[int], row: int, num_beams: int) -> list[int]:
    """Tokens of transformers' beam search for one clip, with the scaling of the logits that transformers leaves out."""
    embeds = granite.embed(torch.tensor([prompt]), audio.select([row]))
    scaled = granite.hf.generate(
        inputs_embeds=embeds,
        attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
        num_beams=num_beams,
        do_sample=False,
        max_new_tokens=LIMIT,
        length_penalty=1.0,
        early_stopping=False,
        logits_processor=[lambda ids, scores: (scores / granite.logits_scaling).log_softmax(-1)],
        renormalize_logits=True,
    )
    return [token for token in scaled[0].tolist() if token != granite.tokenizer.eos_token_id]


@pytest.mark.parametrize("num_beams", [2, 4, 8])
def test_texts_are_those_of_transformers(
    granite: SpeechModel, audio: EncodedAudio, prompts: list[list[int]], num_beams: int
) -> None:
    found = beam_search(granite, audio, prompts, num_beams, LIMIT)
    for row, search in enumerate(found):
        assert list(search.best[0].tokens) == generate(granite, audio, prompts[row], row, num_beams)
    assert {beam.complete for search in found for beam in search.best} == {True, False}


def test_the_other_clips_of_a_batch_change_nothing(
    granite: SpeechModel, audio: EncodedAudio, prompts: list[list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    together = beam_search(granite, audio, prompts, 3, LIMIT)
    monkeypatch.setattr(module, "ROWS", 3)  # one clip at a time
    alone = beam_search(granite, audio, prompts, 3, LIMIT)
    for left, right in zip(together, alone, strict=True):
        assert [beam.tokens for beam in left.best] == [beam.tokens for beam in right.best]
        assert [beam.mean() for beam in left.best] == pytest.approx([beam.mean() for beam in right.best], abs=1e-4)
        assert all(beam.complete or len(beam.tokens) == LIMIT for beam in left.best) and 0 < left.passes <= LIMIT


def test_a_search_goes_on_until_no_text_can_be_better() -> None:
    search = Search(2)
    assert search.extend([(-0.1, 0, 5), (-0.2, 0, 9), (-3.0, 0, 6), (-4.0, 0, 7)], 9, 10) == [0, 0]
    assert [(beam.tokens, beam.complete) for beam in search.best] == [((), True)]
    assert search.extend([(-0.3, 0, 9), (-0.38, 0, 8), (-0.5, 0, 7), (-5.0, 1, 9)], 9, 10) == [0, 0]
    assert [beam.tokens for beam in search.live] == [(5, 8), (5, 7)]
    assert search.extend([(-0.7, 1, 9), (-0.8, 0, 9), (-0.9, 0, 8), (-0.95, 0, 7)], 9, 10) == []
    assert [(beam.tokens, round(beam.mean(), 3)) for beam in search.best] == [((5,), -0.15), ((), -0.2)]
    assert search.passes == 3


def beams(*values: float) -> list[Beam]:
    """Complete texts of one token with these log probabilities for each token."""
    return [Beam((1,), 2 * value, complete=True) for value in values]


HEARD = "_give_ _me_topro_lol_ _at__ _ni_ght_"


@pytest.mark.parametrize(
    ("texts", "weight", "chosen"),
    [
        (["give metoprole at night", "give metoprolol at night"], 0.2, 1),
        (["give metoprole at night", "give metoprolol at night"], 0.0, 0),
        (["Give metoprolol, at night.", "give metoprolol at night"], 0.2, 0),  # capitals and marks are not heard
        (["give metoprolol at night and every night", "give metoprolol at night"], 0.2, 1),
        (["", "give metoprolol at night"], 0.2, 1),
        (["give metoprolol at 9", "give metoprole at night", "give metoprolol at night"], 0.2, 0),
        (["give metoprole at 9", "give metoprolol at night", "give metoprolol at 9"], 0.2, 2),
        (["Give metoprole at (9).", "give metoprolol at 9"], 0.2, 1),  # the same number
        (["give metoprole at -9", "give metoprolol at 9"], 0.2, 0),
        (["give metoprole at .9", "give metoprolol at 9"], 0.2, 0),
        (["give metoprole at night", "give - metoprolol -- at night"], 0.2, 1),  # a dash has no sound
        (["give metoprole at night", "give 'metoprolol' ‘at’ \"night\""], 0.2, 1),  # nor have quotation marks
        (["", "give metoprolol at 9", "give metoprolol at night"], 0.2, 1),  # no text says nothing about numbers
        (["", "give metoprolol at night", "give metoprolol at 9"], 0.2, 1),
        (["x" * 99, "y" * 98], 0.2, 0),  # too few frames for both
        (["薬", "葉"], 0.2, 0),
        ([""], 0.2, 0),
    ],
)
def test_the_ctc_head_chooses_among_texts_with_the_same_numbers(texts: list[str], weight: float, chosen: int) -> None:
    found = beams(*np.linspace(-0.1, -0.2, len(texts)))
    choice = choose(found, texts, log_probs(HEARD), weight)
    assert (choice.text, choice.beam, choice.without_keywords) == (texts[chosen], found[chosen], None)
    assert choose(found, texts, None, weight, ("metoprolol",)).text == texts[0]


def test_keywords_are_written_into_each_text_before_the_choice() -> None:
    """Without them, the text that is nearest to the sound is better than the one in which the keyword has a place."""
    texts = ["give me topro lol at night", "give at night"]
    heard = log_probs("_give_ _me_topro_ _lol_ _at__ _ni_ght_")
    plain, told = (choose(beams(-0.2, -0.3), texts, heard, 1.0, words) for words in ((), ("metoprolol",)))
    assert (plain.text, plain.without_keywords) == ("give me topro lol at night", None)
    assert (told.text, told.without_keywords) == ("give metoprolol at night", "give me topro lol at night")


@pytest.mark.parametrize(
    ("text", "bonus"),
    [
        ("Give metoprolol.", 10.0),
        ("give metoprolol and metoprolol", 20.0),
        ("give metoproloid", 0.0),
        ("give l'aspirine and metoprolol's dose", 16.0),
        ("for Crohn’s disease", 20.0),
        ("metoprolol succinate", 30.0),  # not that of metoprolol too
    ],
)
def test_keywords_of_a_text_have_a_bonus(text: str, bonus: float) -> None:
    assert keyword_bonus(text, ("metoprolol", "aspirine", "Crohn's disease", "metoprolol succinate")) == bonus


def test_the_embedded_model_makes_fewer_errors(model: Callable[[], SpeechModel]) -> None:
    clips = embedded("replay", 40)
    wer = {}
    for name, options in {
        "greedy": DecodingOptions(decoder="greedy"),
        "beams": DecodingOptions(decoder="beam", ctc_weight=0),
        "beams and CTC": DecodingOptions(decoder="beam"),
    }.items():
        hypotheses = recognize(model(), clips, INSTRUCTION, options)
        wer[name] = score([clip.text for clip in clips], [item.text for item in hypotheses], "basic@2").wer
    assert wer["beams and CTC"] < wer["beams"] < wer["greedy"]


@pytest.mark.parametrize("change", [{"language": "ja"}, {"task": "translate", "target_language": "fr"}])
def test_the_language_model_chooses_alone_where_the_ctc_head_cannot_write(
    model: Callable[[], SpeechModel], change: dict[str, str]
) -> None:
    clips = [replace(clip, **change) for clip in embedded("replay", 6)]  # type: ignore[arg-type]
    with_ctc, alone = (
        [item.text for item in recognize(model(), clips, INSTRUCTION, DecodingOptions("beam", ctc_weight=weight))]
        for weight in (5.0, 0.0)
    )
    assert with_ctc == alone


@pytest.mark.parametrize("bad", [{"num_beams": 1}, {"num_beams": 65}, {"ctc_weight": -0.1}, {"decoder": "beams"}])
def test_options_out_of_range_are_refused(bad: dict[str, object]) -> None:
    with pytest.raises(RecipeError, match=next(iter(bad))):
        DecodingOptions(**bad)
