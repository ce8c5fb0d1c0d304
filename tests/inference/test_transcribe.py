"""Files to transcripts on the embedded model: whatever comes in, each file is heard, found silent or refused."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from command import with_thresholds
from conftest import VOCABULARY
from numpy.typing import NDArray
from torch import Tensor

import finetune
from finetune.core.errors import DataError, ModelError, RecipeError
from finetune.data.audio import SAMPLE_RATE, load_audio
from finetune.data.manifest import Utterance
from finetune.inference import transcribe as transcription
from finetune.inference.options import Wish
from finetune.inference.recognize import DecodeOptions, Hypothesis, encode_batches, recognize, transcribe_batch
from finetune.inference.settings import settings_of
from finetune.inference.thresholds import Thresholds
from finetune.inference.transcribe import load, request_for, transcripts
from finetune.model.granite import Audio, GraniteSpeech

CANARY = VOCABULARY / "audio" / "canary"
PARK, DOOR, GARDEN = (CANARY / f"canary-00{name}.opus" for name in ("1-en-us-f3", "2-en-us-m3", "6-flite-slt"))
SAID = [
    "we went to the park after lunch",
    "please close the door when you leave",
    "the children are playing in the garden",
]


@pytest.fixture(scope="module")
def granite(model: Callable[[], GraniteSpeech]) -> GraniteSpeech:
    return model()


def wav(path: Path, *waves: NDArray[np.float32], rate: int = SAMPLE_RATE) -> Path:
    soundfile.write(path, np.concatenate(waves), rate, subtype="FLOAT")
    return path


def silence(seconds: float) -> NDArray[np.float32]:
    return np.zeros(round(seconds * SAMPLE_RATE), np.float32)


@pytest.fixture(scope="module")
def long(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """45 seconds with three sentences."""
    waves = [load_audio(path) for path in (PARK, DOOR, GARDEN)]
    return wav(
        tmp_path_factory.mktemp("long") / "long.wav",
        silence(1),
        waves[0],
        silence(9),
        waves[1],
        silence(20),
        waves[2],
        silence(9),
    )


def test_a_long_file_is_heard_as_its_sentences_alone(granite: GraniteSpeech, long: Path) -> None:
    (heard,) = finetune.transcribe(long, granite)
    assert heard.text == " ".join(SAID)
    assert heard.duration == pytest.approx(len(load_audio(long)) / SAMPLE_RATE)
    assert [segment.text for segment in heard.segments] == SAID
    words = [word for segment in heard.segments for word in segment.words]
    assert [word.text for word in words] == " ".join(SAID).split()
    edges = [edge for word in words for edge in (word.start, word.end)]
    assert edges == sorted(edges)
    for segment, (start, end) in zip(heard.segments, ((1.0, 2.8), (11.8, 13.9), (33.8, 36.0)), strict=True):
        assert start - 0.2 < segment.start <= segment.words[0].start < segment.words[-1].end <= segment.end < end + 0.2
        assert segment.words[0].start < start + 0.4 and segment.words[-1].end > end - 0.6
    assert heard.acceptance is not None and heard.acceptance > 0.3 and not heard.truncated


def test_files_come_in_order_and_their_windows_in_common_batches(
    granite: GraniteSpeech, long: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[list[str]] = []

    def counted(
        model: GraniteSpeech, windows: list[Utterance], seconds: float
    ) -> Iterator[tuple[list[int], Audio, float]]:
        calls.append([window.audio_filepath for window in windows])
        return encode_batches(model, windows, seconds)

    monkeypatch.setattr(transcription, "encode_batches", counted)
    request = request_for(settings_of("nowhere"), Wish.of("en", None, []))
    paths = [str(path) for path in (GARDEN, long, PARK)]
    watched: list[tuple[float, float]] = []
    found = list(transcripts(granite, paths, request, watch=lambda *pair: watched.append(pair)))
    assert [item.path for item in found] == paths
    texts = [SAID[2], " ".join(SAID), SAID[0]]
    assert [item.text for item in found] == texts
    assert [len(call) for call in calls] == [5] and {item.language for item in found} == {"en"}
    assert watched[-1][0] == pytest.approx(watched[-1][1])

    small = replace(request, decode=replace(request.decode, batch_seconds=2.0))
    calls.clear()
    stream = transcripts(granite, paths, small)
    assert next(stream).text == SAID[2] and len(calls) == 1, "the first file is there before the others are read"
    assert [item.text for item in stream] == texts[1:] and len(calls) == 2
    assert all(one != two for one, two in pairwise(calls))


def test_the_encoder_hears_each_window_once(
    granite: GraniteSpeech, long: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Word times, whether anybody speaks and the draft come from the pass that the language model reads too."""
    heard: list[int] = []
    listen = granite.encode

    def counted(features: Tensor, frames: Tensor) -> Audio:
        heard.append(len(frames))
        return listen(features, frames)

    monkeypatch.setattr(granite, "encode", counted)
    (found,) = finetune.transcribe(long, granite)
    assert sum(heard) == len(found.segments) == 3 and all(segment.words for segment in found.segments)


def test_no_window_reaches_the_model_that_is_too_long_or_silent(
    granite: GraniteSpeech, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Utterance] = []

    def watched(
        model: GraniteSpeech, audio: Audio, windows: Sequence[Utterance], options: DecodeOptions
    ) -> list[Hypothesis]:
        seen.extend(windows)
        return transcribe_batch(model, audio, windows, options)

    monkeypatch.setattr(transcription, "transcribe_batch", watched)
    speech = load_audio(PARK)
    path = wav(tmp_path / "talk.wav", *[speech] * 5, silence(40), speech)
    request = request_for(replace(settings_of("nowhere"), max_new_tokens=8, max_window=4.0), Wish.of(None, None, []))
    (heard,) = transcripts(granite, [str(path)], request)
    assert len(seen) >= 4 and all(window.duration <= 4 for window in seen)
    assert sum(window.duration for window in seen) == pytest.approx(6 * len(speech) / SAMPLE_RATE, abs=0.7)
    assert heard.truncated


QUIET: dict[str, NDArray[np.float32]] = {
    "zeros": silence(2),
    "an offset": silence(2) + 0.25,
    "nearly silent": silence(2) + 1e-4 * np.float32(np.random.default_rng(0).standard_normal(2 * SAMPLE_RATE)),
    "a minute": silence(60),
    "a tone": np.float32(0.1) * np.sin(np.arange(2 * SAMPLE_RATE) / 10).astype(np.float32),
}


@pytest.mark.parametrize("name", QUIET)
def test_silence_gives_no_text(
    granite: GraniteSpeech, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """A tone has windows, and no character in them."""

    def never(*_: object) -> list[Hypothesis]:
        assert not _[2], "silence was given to the language model"
        return []

    monkeypatch.setattr(transcription, "transcribe_batch", never)
    (heard,) = finetune.transcribe(wav(tmp_path / "a.wav", QUIET[name]), granite)
    assert (heard.text, heard.segments, heard.acceptance) == ("", (), None)
    assert heard.duration == len(QUIET[name]) / SAMPLE_RATE


def bad_files(folder: Path) -> dict[str, str]:
    """Path -> what is said about it."""
    good = wav(folder / "good.wav", load_audio(PARK)).read_bytes()
    (folder / "empty.wav").touch()
    (folder / "half.wav").write_bytes(good[: len(good) // 2])
    (folder / "page.mp3").write_text("<html>gone</html>")
    wav(folder / "one.wav", silence(1 / SAMPLE_RATE))
    wav(folder / "nan.wav", silence(1) + np.float32("nan"))
    return {
        "empty.wav": "0 bytes",
        "half.wav": "cut short",
        "page.mp3": "a web page",
        "one.wav": "too short: 0.1 ms",
        "nan.wav": "not finite",
        "gone.wav": "no such file",
        "": "a folder",
    }


def test_bad_files_are_named_and_the_others_heard(granite: GraniteSpeech, tmp_path: Path) -> None:
    faults = {str(tmp_path / name): message for name, message in bad_files(tmp_path).items()}
    told: dict[str, str] = {}
    paths = [str(PARK), *faults, str(DOOR)]
    heard = finetune.transcribe(paths, granite, failed=lambda path, error: told.update({path: str(error)}))
    assert [item.text for item in heard] == SAID[:2]
    assert told.keys() == faults.keys()
    for path, message in faults.items():
        assert told[path].startswith(path) and message in told[path]
    with pytest.raises(DataError, match="0 bytes"):
        finetune.transcribe(tmp_path / "empty.wav", granite)


def test_a_file_that_breaks_after_it_was_looked_at_takes_no_other_with_it(
    granite: GraniteSpeech, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = tmp_path / "copy.wav"
    wav(copy, load_audio(GARDEN))
    cut = transcription.cut

    def vanish(*arguments: object) -> object:
        windows = cut(*arguments)  # type: ignore[arg-type]
        copy.unlink(missing_ok=True)
        return windows

    monkeypatch.setattr(transcription, "cut", vanish)
    told: list[str] = []
    heard = finetune.transcribe([PARK, copy, DOOR], granite, failed=lambda path, error: told.append(str(error)))
    assert [item.text for item in heard] == SAID[:2] and told == [f"{copy}: no such file"]


def test_a_batch_too_large_for_the_gpu_says_what_to_lower(
    granite: GraniteSpeech, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise torch.OutOfMemoryError

    monkeypatch.setattr(transcription, "transcribe_batch", full)
    with pytest.raises(ModelError, match="200 s of audio at once .* lower batch_seconds"):
        finetune.transcribe(PARK, granite, batch_seconds=200)


def test_any_rate_and_number_of_channels_is_heard(granite: GraniteSpeech, tmp_path: Path) -> None:
    wave = load_audio(GARDEN)
    soundfile.write(tmp_path / "stereo.wav", np.stack([wave, wave], 1), SAMPLE_RATE, subtype="FLOAT")
    phone = wave[: len(wave) // 2 * 2].reshape(-1, 2).mean(1)
    wav(tmp_path / "phone.wav", phone, rate=8_000)
    stereo, telephone = finetune.transcribe([tmp_path / "stereo.wav", tmp_path / "phone.wav"], granite)
    assert stereo.text == SAID[2] and telephone.text.split()[:2] == SAID[2].split()[:2]


def test_keywords_go_into_the_prompt_up_to_its_room(granite: GraniteSpeech) -> None:
    (heard,) = finetune.transcribe(PARK, granite, keywords=["the park", "lunch"])
    assert heard.text
    with pytest.raises(
        ModelError,
        match=r"1000 keywords\), a window of audio \(300\) and its text \(400\) are more "
        r"than the model's 4096 positions; give fewer",
    ):
        finetune.transcribe(PARK, granite, keywords=[f"medication number {n}" for n in range(1000)])
    with pytest.raises(ModelError, match=r"keyword holds <\|audio\|>"):
        finetune.transcribe(PARK, granite, keywords=["a<|audio|>b"])
    with pytest.raises(RecipeError, match="on one line"):
        finetune.transcribe(PARK, granite, keywords=["a\nb"])


def test_a_translation_has_its_own_prompt_no_draft_and_no_word_times(granite: GraniteSpeech) -> None:
    request = request_for(settings_of("nowhere"), Wish.of("en", "French", ["Granite"]))
    assert request.decode.instruction == "translate the speech to French." and not request.decode.speculative
    assert (request.language, request.word_times) == ("fr", False)
    assert not request_for(settings_of("nowhere"), Wish.of("ja", None, [])).decode.speculative
    assert request_for(settings_of("nowhere"), Wish.of("fr", None, [])).decode.speculative
    (heard,) = finetune.transcribe(PARK, granite, translate_to="fr", max_new_tokens=5)
    assert heard.language == "fr" and heard.acceptance is None
    assert all(not segment.words for segment in heard.segments)


@pytest.mark.parametrize("pair", [Thresholds(100.0, 0.5), Thresholds(0.0, 0.02)])
def test_a_calibrated_model_is_heard_with_its_own_thresholds(nano: Path, tmp_path: Path, pair: Thresholds) -> None:
    """On a clip that the CTC head, a lenient and a strict language model spell in three ways."""
    rain = CANARY / "canary-004-en-gb-m7.opus"
    model = load(str(with_thresholds(nano, tmp_path / "model", pair.max_entropy, pair.min_probability)))
    settings, clip = settings_of(model.source), Utterance("rain", str(rain), len(load_audio(rain)) / SAMPLE_RATE, "")
    options = DecodeOptions(settings.instruction, True, settings.batch_seconds, settings.max_new_tokens)
    lossless, default, calibrated = (
        recognize(model, [clip], replace(options, relaxed=relaxed))[0]
        for relaxed in (None, Thresholds(settings.max_entropy, settings.min_probability), pair)
    )
    assert calibrated.text not in (lossless.text, default.text)
    (heard,) = finetune.transcribe(rain, model, decoder="relaxed")
    assert heard.text == calibrated.text and (heard.acceptance is None) == (pair.max_entropy > 0)
    assert [item.text for item in finetune.transcribe([rain], model)] == [lossless.text], "drafts alone lose nothing"


def test_no_files_give_no_transcripts(granite: GraniteSpeech) -> None:
    assert finetune.transcribe([], granite) == []


def test_the_package_has_nothing_else_to_give() -> None:
    with pytest.raises(AttributeError, match="transcripe"):
        _ = finetune.transcripe  # type: ignore[attr-defined]
