"""Files and arrays of any length to transcripts, on the embedded model."""

import io
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from command import with_thresholds
from conftest import VOCABULARY
from numpy.typing import NDArray
from video_file import write_video

import finetune
from finetune import GraniteSpeech
from finetune.core.errors import DataError, ModelError, RecipeError
from finetune.core.options import DecodingOptions, TranscribeOptions, override
from finetune.data.audio import SAMPLE_RATE, load_audio
from finetune.data.formats.subtitles import parse_subtitles
from finetune.data.manifest import Utterance
from finetune.data.probes import guard_probes
from finetune.inference.recognize import Hypothesis, recognize, transcribe_batch
from finetune.inference.saved_options import options_for
from finetune.inference.transcribe import Source, Transcriber, activity_detector
from finetune.inference.transcript import Transcript
from finetune.inference.vad import Activity
from finetune.model import granite as granite_module
from finetune.model.granite import EncodedAudio

CANARY = VOCABULARY / "audio" / "canary"
RAIN, DOOR, GARDEN = (CANARY / f"canary-00{name}.opus" for name in ("4-en-gb-m7", "2-en-us-m3", "6-flite-slt"))
TEXTS = [  # of the embedded model
    "it will rain again tomorrow morning",
    "please close the door when you leave",
    "the children are playing in the garden",
]


@pytest.fixture(scope="module")
def granite(model: Callable[[], granite_module.SpeechModel]) -> GraniteSpeech:
    return GraniteSpeech(model(), TranscribeOptions())


def wav(path: Path, *waves: NDArray[np.float32], rate: int = SAMPLE_RATE) -> Path:
    soundfile.write(path, np.concatenate(waves), rate, subtype="FLOAT")
    return path


def silence(seconds: float) -> NDArray[np.float32]:
    return np.zeros(round(seconds * SAMPLE_RATE), np.float32)


@pytest.fixture(scope="module")
def long(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """45 seconds with three sentences."""
    waves = [load_audio(path) for path in (RAIN, DOOR, GARDEN)]
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
    transcript = finetune.transcribe(long, granite)
    assert transcript.text == " ".join(TEXTS)
    assert transcript.duration == pytest.approx(len(load_audio(long)) / SAMPLE_RATE)
    assert [segment.text for segment in transcript.segments] == TEXTS
    words = [word for segment in transcript.segments for word in segment.words]
    assert [word.text for word in words] == " ".join(TEXTS).split()
    edges = [edge for word in words for edge in (word.start, word.end)]
    assert edges == sorted(edges)
    for segment, (start, end) in zip(transcript.segments, ((1.0, 2.8), (11.8, 13.9), (33.8, 36.0)), strict=True):
        assert start - 0.2 < segment.start <= segment.words[0].start < segment.words[-1].end <= segment.end < end + 0.2
        assert segment.words[0].start < start + 0.4 and segment.words[-1].end > end - 0.6
    assert transcript.acceptance is not None and transcript.acceptance > 0.3 and not transcript.truncated


class Recorder:
    """Decodes batches as usual, and keeps their windows."""

    def __init__(self) -> None:
        self.batches: list[list[Utterance]] = []
        self.instructions: list[str] = []

    def __call__(
        self,
        model: granite_module.SpeechModel,
        audio: EncodedAudio,
        windows: Sequence[Utterance],
        instruction: str,
        options: DecodingOptions,
    ) -> list[Hypothesis]:
        self.batches.append(list(windows))
        self.instructions.append(instruction)
        return transcribe_batch(model, audio, windows, instruction, options)


def test_files_keep_their_order_and_share_batches(granite: GraniteSpeech, long: Path) -> None:
    paths = [str(path) for path in (GARDEN, long, RAIN)]
    texts = [TEXTS[2], " ".join(TEXTS), TEXTS[0]]
    progress: list[tuple[float, float]] = []
    recorder = Recorder()
    transcriber = Transcriber(granite.network, TranscribeOptions(language="en"), decode=recorder)
    transcripts = list(transcriber.stream(paths, progress=lambda *pair: progress.append(pair)))
    assert [item.path for item in transcripts] == paths
    assert [item.text for item in transcripts] == texts
    assert [len(batch) for batch in recorder.batches] == [5] and {item.language for item in transcripts} == {"en"}
    assert len(progress) == 1 and progress[0][0] == pytest.approx(progress[0][1])

    small = replace(transcriber.options, decoding=replace(transcriber.options.decoding, batch_seconds=2.0))
    recorder.batches.clear()
    progress.clear()
    stream = Transcriber(granite.network, small, decode=recorder).stream(
        paths, progress=lambda *pair: progress.append(pair)
    )
    assert next(stream).text == TEXTS[2]
    early = [window.audio_filepath for batch in recorder.batches for window in batch]
    assert paths[2] not in early, "the first transcript comes before the last file is read"
    assert [item.text for item in stream] == texts[1:]
    assert len(progress) > 1 and progress == sorted(progress) and progress[-1][0] == pytest.approx(progress[-1][1])


def test_the_seconds_of_a_batch_are_shared_by_its_recordings(granite: GraniteSpeech) -> None:
    started = time.perf_counter()
    transcripts = granite.transcribe([RAIN, DOOR, GARDEN, RAIN])
    assert 0 < sum(item.seconds for item in transcripts) <= time.perf_counter() - started


def test_no_word_ends_after_the_recording(granite: GraniteSpeech) -> None:
    """The audio ends within a word and within a frame of the encoder."""
    transcript = granite.transcribe(load_audio(RAIN)[:22_666], sample_rate=SAMPLE_RATE)
    assert transcript.words[-1].end == transcript.duration == 22_666 / SAMPLE_RATE


def test_the_model_gets_the_prompt_and_the_keywords_of_the_options(granite: GraniteSpeech) -> None:
    recorder = Recorder()
    options = TranscribeOptions(
        translate_to="fr", keywords=("stent",), decoding=DecodingOptions("greedy", max_new_tokens=2)
    )
    list(Transcriber(granite.network, options, decode=recorder).stream([RAIN]))
    assert recorder.instructions == ["translate the speech to French."]
    assert [(window.keywords, window.language) for window in recorder.batches[0]] == [(("stent",), "fr")]


def test_each_window_is_encoded_once(granite: GraniteSpeech, long: Path) -> None:
    """Word times, speech detection and the draft use the encoder output that the language model reads."""
    rows: list[int] = []
    hook = granite.network.encoder.input_linear.register_forward_hook(lambda _, args, out: rows.append(len(out)))
    transcript = granite.transcribe(long)
    hook.remove()
    assert sum(rows) == len(transcript.segments) == 3 and all(segment.words for segment in transcript.segments)


def test_no_window_is_too_long_or_silent(granite: GraniteSpeech, tmp_path: Path) -> None:
    speech = load_audio(RAIN)
    path = wav(tmp_path / "talk.wav", *[speech] * 5, silence(40), speech)
    recorder = Recorder()
    options = TranscribeOptions(decoding=DecodingOptions(max_new_tokens=8, max_window=4.0))
    (transcript,) = Transcriber(granite.network, options, decode=recorder).stream([path])
    windows = [window for batch in recorder.batches for window in batch]
    assert len(windows) >= 4 and all(window.duration <= 4 for window in windows)
    assert sum(window.duration for window in windows) == pytest.approx(6 * len(speech) / SAMPLE_RATE, abs=0.7)
    assert transcript.truncated


QUIET: dict[str, NDArray[np.float32]] = {
    "zeros": silence(2),
    "an offset": silence(2) + 0.25,
    "nearly silent": silence(2) + 1e-4 * np.float32(np.random.default_rng(0).standard_normal(2 * SAMPLE_RATE)),
    "a minute": silence(60),
    "a tone": np.float32(0.1) * np.sin(np.arange(2 * SAMPLE_RATE) / 10).astype(np.float32),
}


@pytest.mark.parametrize("name", QUIET)
def test_silence_gives_no_text(granite: GraniteSpeech, tmp_path: Path, name: str) -> None:
    """A tone has windows, and the CTC head finds no character in them."""
    recorder = Recorder()
    path = wav(tmp_path / "a.wav", QUIET[name])
    (transcript,) = Transcriber(granite.network, TranscribeOptions(), decode=recorder).stream([path])
    assert not any(recorder.batches), "silence was given to the language model"
    assert (transcript.text, transcript.segments, transcript.acceptance) == ("", (), None)
    assert transcript.duration == len(QUIET[name]) / SAMPLE_RATE


def bad_files(folder: Path) -> dict[str, str]:
    """By path, the error message for the file."""
    good = wav(folder / "good.wav", load_audio(RAIN)).read_bytes()
    (folder / "empty.wav").touch()
    (folder / "half.wav").write_bytes(good[: len(good) // 2])
    (folder / "page.mp3").write_text("<html>gone</html>")
    wav(folder / "one.wav", silence(1 / SAMPLE_RATE))
    wav(folder / "nan.wav", silence(1) + np.float32("nan"))
    return {
        "empty.wav": "0 bytes",
        "half.wav": "truncated",
        "page.mp3": "a web page",
        "one.wav": "too short: 0.1 ms",
        "nan.wav": "NaN or infinite",
        "gone.wav": "no such file",
        "": "a folder",
    }


def test_bad_files_are_reported_and_the_others_transcribed(granite: GraniteSpeech, tmp_path: Path) -> None:
    faults = {str(tmp_path / name): message for name, message in bad_files(tmp_path).items()}
    errors: dict[str, str] = {}
    paths = [str(RAIN), *faults, str(DOOR)]
    transcripts = granite.transcribe(paths, failed=lambda path, error: errors.update({path: str(error)}))
    assert [item.text for item in transcripts] == TEXTS[:2]
    assert errors.keys() == faults.keys()
    for path, message in faults.items():
        assert errors[path].startswith(path) and message in errors[path]
    with pytest.raises(DataError, match="0 bytes"):
        granite.transcribe(tmp_path / "empty.wav")


def test_a_file_that_vanishes_after_it_was_opened_fails_alone(granite: GraniteSpeech, tmp_path: Path) -> None:
    copy = wav(tmp_path / "copy.wav", load_audio(GARDEN))
    detect = activity_detector("level")

    def vanish(source: Source) -> Activity:
        activity = detect(source)
        if source == copy:
            copy.unlink()
        return activity

    errors: list[str] = []
    transcriber = Transcriber(granite.network, TranscribeOptions(), detect=vanish)
    transcripts = list(transcriber.stream([RAIN, copy, DOOR], failed=lambda path, error: errors.append(str(error))))
    assert [item.text for item in transcripts] == TEXTS[:2] and errors == [f"{copy}: no such file"]


def test_a_batch_too_large_for_the_gpu_says_what_to_lower(granite: GraniteSpeech) -> None:
    def full(*_: object) -> list[Hypothesis]:
        raise torch.OutOfMemoryError

    options = TranscribeOptions(decoding=DecodingOptions(batch_seconds=200))
    with pytest.raises(ModelError, match="a batch of 200 s .* lower batch_seconds"):
        list(Transcriber(granite.network, options, decode=full).stream([RAIN]))


def test_any_rate_and_number_of_channels(granite: GraniteSpeech, tmp_path: Path) -> None:
    wave = load_audio(GARDEN)
    soundfile.write(tmp_path / "stereo.wav", np.stack([wave, wave], 1), SAMPLE_RATE, subtype="FLOAT")
    phone = wave[: len(wave) // 2 * 2].reshape(-1, 2).mean(1)
    wav(tmp_path / "phone.wav", phone, rate=8_000)
    stereo, telephone = finetune.transcribe([tmp_path / "stereo.wav", tmp_path / "phone.wav"], granite)
    assert stereo.text == TEXTS[2] and telephone.text.split()[:2] == TEXTS[2].split()[:2]


def test_each_channel_of_files_and_arrays(granite: GraniteSpeech, tmp_path: Path) -> None:
    waves = [load_audio(path) for path in (RAIN, DOOR)]
    count = max(map(len, waves))
    both = np.stack([np.pad(wave, (0, count - len(wave))) for wave in waves])
    soundfile.write(tmp_path / "call.wav", both.T, SAMPLE_RATE, subtype="FLOAT")
    for audio in (tmp_path / "call.wav", {"array": both, "sampling_rate": SAMPLE_RATE}):
        result = granite.transcribe(audio, channel="each")
        assert [(item.channel, item.text) for item in result] == [(0, TEXTS[0]), (1, TEXTS[1])]
        right = granite.transcribe(audio, channel="right")
        assert (right.channel, right.text, right.note) == (1, TEXTS[1], "")
        assert granite.transcribe(audio, channel=0).to_dict()["channel"] == 0
        mixed = granite.transcribe(audio)
        assert mixed.channel is None and mixed.note.startswith("2 channels, averaged")
        with pytest.raises(DataError, match="channel 2 does not exist"):
            granite.transcribe(audio, channel=2)
    with pytest.raises(RecipeError, match="channel -1 is not mix"):
        granite.transcribe(RAIN, channel=-1)


def test_a_file_that_lacks_its_end_has_a_note(granite: GraniteSpeech, tmp_path: Path) -> None:
    complete, content = granite.transcribe(RAIN), RAIN.read_bytes()
    (tmp_path / "cut.opus").write_bytes(content[: len(content) * 2 // 3])
    cut = granite.transcribe(tmp_path / "cut.opus")
    assert (complete.note, cut.note) == ("", "the file seems to be truncated: it ends within an Ogg page")


def test_subtitles_fit_a_video_whose_audio_begins_later(granite: GraniteSpeech, tmp_path: Path) -> None:
    pytest.importorskip("av")
    wave = load_audio(RAIN)
    write_video(tmp_path / "now.mkv", wave, 0.0)
    write_video(tmp_path / "late.mkv", wave, 1.5)
    now, late = granite.transcribe([tmp_path / "now.mkv", tmp_path / "late.mkv"])
    assert (now.text, late.text) == (TEXTS[0], TEXTS[0]) and now.note == "" and now.delay == 0
    assert late.note.startswith("the audio begins 1.5") and late.delay == pytest.approx(1.5, abs=0.1)
    assert (late.segments, late.to_tsv()) == (now.segments, now.to_tsv())
    (first,) = parse_subtitles(now.to_srt()).cues
    for text in (late.to_srt(), late.to_vtt()):
        (cue,) = parse_subtitles(text).cues
        assert cue.start - first.start == pytest.approx(late.delay, abs=0.002)
        assert cue.end - first.end == pytest.approx(late.delay, abs=0.002)


@pytest.mark.parametrize("suffix", ["mkv", "mp4"])
def test_gaps_in_the_times_of_a_video_are_named(granite: GraniteSpeech, tmp_path: Path, suffix: str) -> None:
    pytest.importorskip("av")
    wave = load_audio(RAIN)
    write_video(tmp_path / f"gap.{suffix}", wave, 0.0, gap=1.5)
    transcript = granite.transcribe(tmp_path / f"gap.{suffix}")
    assert transcript.text == TEXTS[0]
    assert transcript.note.startswith("the audio has gaps of 1.5 s, the first after ")
    first = float(transcript.note.split("after ")[1].split(" s")[0])
    assert first == pytest.approx(len(wave) / 32_000, abs=0.2)


def test_keywords_go_into_the_prompt_up_to_its_room(granite: GraniteSpeech) -> None:
    with pytest.warns(UserWarning, match="not trained with keyword prompts"):
        transcript = finetune.transcribe(RAIN, granite, keywords=["the park", "lunch"])
    assert transcript.text
    with pytest.raises(ModelError, match="lower max_new_tokens$"):
        finetune.transcribe(RAIN, granite, max_new_tokens=4000)
    with pytest.raises(
        ModelError,
        match=r"1,000 keywords\), the audio of a window \(300\) and its text \(400\) need more than the model's 4096 "
        "positions; give fewer",
    ):
        finetune.transcribe(RAIN, granite, keywords=[f"medication number {n}" for n in range(1000)])
    with pytest.raises(ModelError, match=r"keyword contains the special token <\|audio\|>"):
        finetune.transcribe(RAIN, granite, keywords=["a<|audio|>b"])
    with pytest.raises(RecipeError, match="on one line"):
        finetune.transcribe(RAIN, granite, keywords=["a\nb"])


def test_a_translation_has_its_own_prompt_no_draft_and_no_word_times(granite: GraniteSpeech) -> None:
    options = TranscribeOptions(language="en", translate_to="French", keywords=("Granite",))
    assert options.prompt() == "translate the speech to French." and options.effective_decoding().decoder == "greedy"
    assert options.text_language == "fr"
    assert TranscribeOptions(language="ja").effective_decoding().decoder == "greedy"
    assert TranscribeOptions(language="fr").effective_decoding().decoder == "speculative"
    transcript = granite.transcribe(RAIN, translate_to="fr", max_new_tokens=5)
    assert transcript.language == "fr" and transcript.acceptance is None
    assert transcript.segments and not transcript.words


@pytest.mark.parametrize("pair", [(100.0, 0.5), (0.0, 0.02)])
def test_a_calibrated_model_uses_its_own_thresholds(nano: Path, tmp_path: Path, pair: tuple[float, float]) -> None:
    """Uses a clip for which the CTC head and relaxed decoding with a low and a high threshold give three texts."""
    rain = CANARY / "canary-004-en-gb-m7.opus"
    model = finetune.load(with_thresholds(nano, tmp_path / "model", *pair))
    clip = Utterance("rain", str(rain), len(load_audio(rain)) / SAMPLE_RATE, "")
    default = replace(TranscribeOptions().decoding, decoder="relaxed")
    strict = replace(default, max_entropy=pair[0], min_probability=pair[1])
    lossless, uncalibrated, calibrated = (
        recognize(model.network, [clip], model.options.instruction, options)[0]
        for options in (replace(default, decoder="speculative"), default, strict)
    )
    assert calibrated.text not in (lossless.text, uncalibrated.text)
    transcript = model.transcribe(rain, decoder="relaxed")
    assert transcript.text == calibrated.text and (transcript.acceptance is None) == (pair[0] > 0)
    assert [item.text for item in model.transcribe([rain])] == [lossless.text], "drafts alone lose nothing"


class AudioDecoder:
    """Has the method of torchcodec's AudioDecoder."""

    def __init__(self, data: torch.Tensor, sample_rate: int) -> None:
        self.samples = SimpleNamespace(data=data, sample_rate=sample_rate)

    def get_all_samples(self) -> SimpleNamespace:
        return self.samples


def arrays() -> dict[str, object]:
    """One recording at 16 kHz in several shapes and types."""
    wave = load_audio(RAIN)
    return {
        "float32": wave,
        "float64": wave.astype(np.float64),
        "int16": np.round(wave * 32767).astype(np.int16),
        "tensor": torch.from_numpy(wave),
        "half tensor": torch.from_numpy(wave).to(torch.float16),
        "channels first": np.stack([wave, wave]),
        "channels last": np.stack([wave, wave], 1),
        "datasets": {"array": wave, "sampling_rate": SAMPLE_RATE, "path": None},
        "decoder": AudioDecoder(torch.from_numpy(wave)[None], SAMPLE_RATE),
    }


@pytest.mark.parametrize("name", arrays())
def test_an_array_is_transcribed_as_its_file(granite: GraniteSpeech, name: str) -> None:
    transcript = granite.transcribe(arrays()[name], sample_rate=SAMPLE_RATE)
    expected = granite.transcribe(RAIN)
    assert isinstance(transcript, Transcript) and transcript.path == "array 1"
    assert transcript.text == expected.text == TEXTS[0] and transcript.duration == expected.duration
    if name in ("float32", "tensor", "datasets"):
        assert transcript.segments == expected.segments


def test_arrays_of_another_rate_are_resampled_as_files_are(granite: GraniteSpeech, tmp_path: Path) -> None:
    samples = np.repeat(load_audio(RAIN), 3)
    path = wav(tmp_path / "a.wav", samples, rate=3 * SAMPLE_RATE)
    clip = {"array": samples, "sampling_rate": 3 * SAMPLE_RATE}
    first, second, third = granite.transcribe([samples, path, clip], sample_rate=3 * SAMPLE_RATE)
    assert (first.text, first.duration) == (second.text, second.duration) == (third.text, third.duration)
    assert granite.transcribe(clip).duration == first.duration, "the rate of the clip is used"


def test_a_sample_rate_of_audio_that_states_its_own(granite: GraniteSpeech) -> None:
    expected = granite.transcribe(RAIN)
    with pytest.warns(UserWarning, match="sample_rate has no effect: files state their own"):
        assert granite.transcribe(RAIN, sample_rate=8_000).segments == expected.segments
    clip = {"array": load_audio(RAIN), "sampling_rate": SAMPLE_RATE}
    with pytest.raises(DataError, match="array 1: sample_rate is 8000, and its sampling_rate 16000"):
        granite.transcribe(clip, sample_rate=8_000)


def test_auto_uses_keywords_as_the_model_does(granite: GraniteSpeech) -> None:
    by_ctc = GraniteSpeech(granite.network, override(granite.options, keyword_method="ctc"))
    expected = by_ctc.transcribe(RAIN, keywords=["gondola"])
    assert by_ctc.transcribe(RAIN, keywords=["gondola"], keyword_method="auto").segments == expected.segments


def test_a_file_is_a_list_of_terms_and_no_keyword(granite: GraniteSpeech, tmp_path: Path) -> None:
    (path := tmp_path / "terms.txt").write_text("gondola\nmetoprolol\n")
    heard = granite.transcribe(RAIN, terms=["gondola", "metoprolol"])
    for terms in (path, str(path)):
        assert granite.transcribe(RAIN, terms=terms).segments == heard.segments
    with pytest.raises(DataError, match=r"gone\.txt: cannot be read"):
        granite.transcribe(RAIN, terms="gone.txt")
    with pytest.raises(DataError, match=r"terms: a, b: cannot be read \(no such file\); give a list"):
        granite.transcribe(RAIN, terms="a, b")
    path.write_text("term;group\nlosartan;a\n")
    with pytest.raises(DataError, match="has a semicolon"):
        granite.transcribe(RAIN, terms=path)
    with pytest.raises(RecipeError, match=r"keywords: .*terms\.txt' is a file; give a list of its lines"):
        granite.transcribe(RAIN, keywords=str(path))


def test_a_long_array_is_cut_as_its_file(granite: GraniteSpeech, long: Path) -> None:
    transcript = granite.transcribe(load_audio(long), sample_rate=SAMPLE_RATE)
    assert transcript.segments == granite.transcribe(long).segments


@pytest.mark.parametrize(
    ("array", "rate", "message"),
    [
        (np.zeros(16_000, np.float32), None, "array 1: an array needs its sample rate, such as sample_rate=16000"),
        (np.zeros(16_000, np.float32), 10, "array 1: sample_rate 10 is not between 4000 and 384000 Hz"),
        (np.full(16_000, np.nan, np.float32), 16_000, "not finite"),
        (np.full(16_000, 9000.0), 16_000, "samples reach 9000"),
        (np.zeros(100, np.float32), 16_000, "too short: 100 samples"),
        (np.zeros(0, np.float32), 16_000, "too short: 0 samples"),
        (np.zeros((3, 9, 9), np.float32), 16_000, "shape"),
        (np.zeros((100, 100), np.float32), 16_000, "shape"),
        (np.zeros(16_000, np.uint8), 16_000, "unsigned integers"),
        (np.array(["a"]), 16_000, "not an array of samples"),
        (np.array(["a.wav", "b.wav"]), None, r"names of files, .* give a list, such as list\(files\)"),
        (None, 16_000, "array 1: NoneType is not audio"),
        (b"RIFF", 16_000, "array 1: bytes is not audio"),
        (io.BytesIO(b"RIFF"), None, "array 1: BytesIO is not audio"),
    ],
)
def test_a_bad_array_is_refused(granite: GraniteSpeech, array: object, rate: int | None, message: str) -> None:
    with pytest.raises(DataError, match=message):
        granite.transcribe(array, sample_rate=rate)


def test_recordings_with_the_same_name_keep_their_own_audio(granite: GraniteSpeech) -> None:
    """`datasets` may give the same `path` to different clips. All windows start at 0 and are in one batch."""
    waves = [load_audio(path)[: round(1.5 * SAMPLE_RATE)] for path in (RAIN, DOOR, GARDEN)]
    clips = [{"array": wave, "sampling_rate": SAMPLE_RATE, "path": "audio.wav"} for wave in waves]
    expected = [granite.transcribe(clip).text for clip in clips]
    assert len({*expected}) == 3 and [item.text for item in granite.transcribe(clips)] == expected


def test_one_recording_that_fails_is_an_error_and_in_a_list_it_is_skipped(granite: GraniteSpeech) -> None:
    errors: list[tuple[str, str]] = []

    def failed(name: str, error: DataError) -> None:
        errors.append((name, str(error)))

    short = np.zeros(10, np.float32)
    for audio, rate in ((short, SAMPLE_RATE), ("gone.wav", None)):
        with pytest.raises(DataError, match="too short|no such file"):
            granite.transcribe(audio, sample_rate=rate, failed=failed)
    assert not errors
    transcripts = granite.transcribe([short, load_audio(RAIN), "gone.wav"], sample_rate=SAMPLE_RATE, failed=failed)
    assert [(item.path, item.text) for item in transcripts] == [("array 2", TEXTS[0])]
    assert [name for name, _ in errors] == ["array 1", "gone.wav"] and "too short" in errors[0][1]
    with pytest.raises(DataError, match="array 2: too short"):
        granite.transcribe([load_audio(RAIN), short], sample_rate=SAMPLE_RATE)


def test_keywords_of_the_options_are_kept_unless_others_are_given(granite: GraniteSpeech) -> None:
    prompted = GraniteSpeech(granite.network, TranscribeOptions(keywords=("a<|audio|>b",)))
    with pytest.raises(ModelError, match="special token <.audio.>"):
        prompted.transcribe(RAIN)
    assert prompted.transcribe(RAIN, keywords=()).text == TEXTS[0]


def test_a_list_of_one_gives_a_list(granite: GraniteSpeech) -> None:
    progress: list[tuple[float, float]] = []
    for audio in ([RAIN], (RAIN,)):
        transcripts = granite.transcribe(audio, progress=lambda *pair: progress.append(pair))
        assert isinstance(transcripts, list) and [item.text for item in transcripts] == TEXTS[:1]
    assert len(progress) == 2 and all(done == total > 0 for done, total in progress)


def test_unknown_options_are_refused(granite: GraniteSpeech) -> None:
    with pytest.raises(RecipeError, match="unknown option 'sampling_rate'"):
        granite.transcribe(RAIN, sampling_rate=16_000)
    with pytest.raises(RecipeError, match="batch_seconds: must be greater than 0, got 0"):
        granite.transcribe(RAIN, batch_seconds=0)


def test_a_transcript_in_every_format(granite: GraniteSpeech) -> None:
    transcript = granite.transcribe(RAIN, language="English")
    assert [word.text for word in transcript.words] == TEXTS[0].split()
    assert transcript.to_dict()["segments"][0]["words"][0]["word"] == "it" and transcript.to_dict()["language"] == "en"
    assert transcript.to_srt().startswith("1\n00:00:0") and TEXTS[0] in transcript.to_srt()
    assert transcript.to_vtt().startswith("WEBVTT\n\n00:0") and TEXTS[0] in transcript.to_vtt()


def test_no_files_give_no_transcripts(granite: GraniteSpeech) -> None:
    assert finetune.transcribe([], granite) == []


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="transcripe"):
        _ = finetune.transcripe  # type: ignore[attr-defined]


@pytest.mark.parametrize("rate", [None, "x", [1]])
def test_a_wrong_sampling_rate_of_a_dict_is_an_error(granite: GraniteSpeech, rate: Any) -> None:
    with pytest.raises(DataError, match="array 1: "):
        granite.transcribe({"array": np.zeros(500), "sampling_rate": rate})


@pytest.mark.parametrize(
    ("audio", "message"),
    [
        (list(np.zeros(3, np.float32)), r"array 1: a list is a list of audio; .*numpy\.array"),
        ((path for path in ["a.wav"]), r"array 1: generator is not audio; .*give a list"),
        ({"a.wav"}, r"array 1: set is not audio; .*give a list"),
        ([0.1, 0.2], r"array 1: a list is a list of audio; .*numpy\.array"),
        ({"bytes": b"RIFF", "path": None}, "array 1: a dict needs the keys 'array' and 'sampling_rate'; .*soundfile"),
        ({"audio": {}, "text": "hi"}, r"array 1: a dict needs .*; give item\['audio'\]"),
    ],
)
def test_samples_and_dicts_of_another_form_are_refused(granite: GraniteSpeech, audio: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        granite.transcribe(audio, sample_rate=SAMPLE_RATE)


def test_options_of_another_decoder_are_refused(granite: GraniteSpeech) -> None:
    for name, decoder in (("num_beams", "beam"), ("ctc_weight", "beam"), ("max_entropy", "relaxed")):
        with pytest.raises(RecipeError, match=f'{name} needs decoder="{decoder}"; the decoder is greedy'):
            granite.transcribe(RAIN, decoder="greedy", **{name: 2})


def test_unreadable_audio_that_is_not_in_a_list_is_an_error_with_failed_too(granite: GraniteSpeech) -> None:
    failures: list[str] = []
    with pytest.raises(DataError, match=r"gone\.wav: no such file"):
        granite.transcribe("gone.wav", failed=lambda name, _: failures.append(name))
    assert granite.transcribe(["gone.wav"], failed=lambda name, _: failures.append(name)) == []
    assert failures == ["gone.wav"]


def pulses(kind: str) -> NDArray[np.float32]:
    time = np.arange(6 * SAMPLE_RATE) / SAMPLE_RATE
    wave = {
        "beeps -30 dB": guard_probes(0)["beeps -30 dB"],
        "beeps": 0.2 * np.sin(2 * np.pi * 1000 * time) * (time % 0.5 < 0.2),
    }[kind]
    return wave.clip(-1, 1).astype(np.float32)


@pytest.mark.parametrize("kind", ["beeps -30 dB", "beeps"])
def test_the_guard_keeps_words_out_of_noise(granite: GraniteSpeech, nano: Path, kind: str) -> None:
    """Without it, the language model invents words."""
    audio = {"array": pulses(kind), "sampling_rate": SAMPLE_RATE}
    invented = granite.transcribe(audio, no_speech=0.0)
    assert invented.text, "the probe is hard enough"
    guarded = granite.transcribe(audio, no_speech=options_for(nano).no_speech)
    assert (guarded.text, guarded.segments) == ("", ()) and guarded.no_speech_windows > 0


def test_short_pauses_do_not_lose_words(granite: GraniteSpeech, nano: Path, tmp_path: Path) -> None:
    """With windows of up to 30 s the embedded model writes a few words of these six sentences."""
    clips = [load_audio(path) for path in (RAIN, DOOR, GARDEN)] * 2
    path = wav(tmp_path / "talk.wav", *[part for clip in clips for part in (clip, silence(0.1))])
    reference = " ".join(TEXTS * 2)
    limits = granite.transcribe(path, max_window=options_for(nano).decoding.max_window)
    assert limits.text == reference and len(limits.segments) == 6
    assert len(granite.transcribe(path, max_window=30.0).text) > 0.8 * len(reference), "a collapsed window is cut again"
