"""Clips that are longer than the longest window are cut at pauses, and their texts are joined."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
from conftest import VOCABULARY

from finetune.core.options import DecodingOptions
from finetune.core.prompts import INSTRUCTION
from finetune.data.audio import SAMPLE_RATE, load_audio
from finetune.data.manifest import Utterance
from finetune.inference.clip_windows import clip_windows
from finetune.inference.recognize import Hypothesis, recognize
from finetune.model.granite import SpeechModel

SPOKEN = {
    "4-en-gb-m7": "it will rain again tomorrow morning",
    "2-en-us-m3": "please close the door when you leave",
    "6-flite-slt": "the children are playing in the garden",
}
START, PAUSE = 1.5, 1.0  # seconds


@pytest.fixture(scope="module")
def talk(tmp_path_factory: pytest.TempPathFactory) -> Utterance:
    """Three sentences with pauses, after noise that is not in the clip."""
    rng, pause = np.random.default_rng(0), np.zeros(round(PAUSE * SAMPLE_RATE), np.float32)
    clips = [load_audio(VOCABULARY / "audio" / "canary" / f"canary-00{name}.opus") for name in SPOKEN]
    samples = np.concatenate([part for clip in clips for part in (clip, pause)])
    path = tmp_path_factory.mktemp("talk") / "talk.wav"
    before = rng.normal(0, 0.1, round(START * SAMPLE_RATE))
    soundfile.write(path, np.concatenate([before, samples]), SAMPLE_RATE, subtype="FLOAT")
    return Utterance("talk", str(path), len(samples) / SAMPLE_RATE, " ".join(SPOKEN.values()), offset=START)


@pytest.fixture(scope="module")
def granite(model: Callable[[], SpeechModel]) -> SpeechModel:
    return model()


def decoded(granite: SpeechModel, clips: list[Utterance], options: DecodingOptions) -> list[Hypothesis]:
    return [replace(item, seconds=0.0) for item in recognize(granite, clips, INSTRUCTION, options)]


def test_the_windows_are_in_the_clip_and_without_its_pauses(talk: Utterance) -> None:
    windows = clip_windows(talk, 3.0)
    assert len(windows) == 3 and all(item.duration <= 3.0 for item in windows)
    assert windows[0].offset >= START and windows[-1].offset + windows[-1].duration <= START + talk.duration
    assert sum(item.duration for item in windows) < talk.duration - PAUSE
    assert clip_windows(talk, talk.duration) == [talk]


def test_the_default_cuts_no_clip(tmp_path: Path) -> None:
    """Training can have clips of more than 30 s (`data.max_duration`), and test sets of the leaderboard have some."""
    clip = load_audio(VOCABULARY / "audio" / "canary" / "canary-004-en-gb-m7.opus")
    samples = np.concatenate([clip, np.zeros(SAMPLE_RATE, np.float32)] * 12)
    soundfile.write(tmp_path / "long.wav", samples, SAMPLE_RATE)
    long = Utterance("long", str(tmp_path / "long.wav"), len(samples) / SAMPLE_RATE, "")
    assert long.duration > 30 and clip_windows(long, DecodingOptions().max_window) == [long]
    assert len(clip_windows(long, 29.0)) == 12


def test_a_clip_without_speech_stays_in_one_piece(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "silence.wav", np.zeros(5 * SAMPLE_RATE), SAMPLE_RATE)
    silent = Utterance("silence", str(tmp_path / "silence.wav"), 5.0, "")
    assert clip_windows(silent, 2.0) == [silent]


@pytest.mark.parametrize("decoder", ["greedy", "speculative", "beam"])
def test_the_text_of_a_long_clip_is_that_of_its_windows(granite: SpeechModel, talk: Utterance, decoder: str) -> None:
    options = DecodingOptions(decoder=decoder, max_window=3.0)  # type: ignore[arg-type]
    short = replace(talk, id="short", duration=2.5)
    first, long, last = decoded(granite, [short, talk, short], options)
    windows = decoded(granite, clip_windows(talk, 3.0), options)
    assert (long.id, long.text) == ("talk", talk.text)
    assert long.text == " ".join(item.text for item in windows)
    assert long.tokens == tuple(token for item in windows for token in item.tokens)
    assert long.log_probability == pytest.approx(sum(item.log_probability for item in windows), abs=1e-4)
    assert long.passes == sum(item.passes for item in windows)
    (alone,) = decoded(granite, [short], options)
    assert first.tokens == last.tokens == alone.tokens, "other clips are as without it"


def test_keywords_are_written_into_the_text_of_each_window(granite: SpeechModel, talk: Utterance) -> None:
    options = DecodingOptions(max_window=3.0, terms=("tomorow", "gardn"))
    (found,) = decoded(granite, [talk], options)
    assert found.without_keywords == talk.text, "of all windows"
    (whole,) = decoded(granite, [talk], replace(options, terms=()))
    assert whole.without_keywords is None and whole.text == talk.text


def test_a_long_clip_of_which_a_window_is_cut_off_is_truncated(granite: SpeechModel, talk: Utterance) -> None:
    (cut,) = decoded(granite, [talk], DecodingOptions(max_window=3.0, max_new_tokens=3))
    assert cut.truncated and len(cut.tokens) == 9
