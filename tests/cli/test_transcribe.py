"""`finetune transcribe`: good and bad files, lists, formats, a closed pipe, bad arguments."""

import argparse
import errno
import io
import json
import os
import shutil
import signal
import tarfile
from collections.abc import Callable
from functools import partial
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import soundfile
from command import Command, Replaced, noise, with_thresholds

from bench.loopback import serve
from finetune.cli import transcribe_command
from finetune.cli.transcribe_arguments import add_arguments, audio_paths, options_from
from finetune.core.files import write_json
from finetune.core.options import DecodingOptions, TranscribeOptions
from finetune.data.tar_index import read_tar_index

ROOT = Path(__file__).resolve().parents[2]
NANO = ROOT / "data" / "granite-speech-nano"
QUICKSTART = ROOT / "recipes" / "quickstart.yaml"
RAIN, DOOR = (
    ROOT / "data/vocabulary/audio/canary" / name for name in ("canary-004-en-gb-m7.opus", "canary-002-en-us-m3.opus")
)


def test_a_bad_file_is_named_and_the_others_are_transcribed(finetune: Command, tmp_path: Path) -> None:
    bad, good = tmp_path / "bad.wav", noise(tmp_path / "good.wav")
    bad.write_text("not audio")
    result = finetune("transcribe", bad, good, tmp_path / "gone.wav", "--model", NANO, "--max-new-tokens", 4)
    assert result.code == 1
    assert f"{bad}: not audio" in result.err and f"{tmp_path / 'gone.wav'}: no such file" in result.err
    assert [line for line in result.out.splitlines() if line.startswith(f"{good}:")]
    assert "1.0 s of audio in" in result.err and "(RTFx " in result.err


def test_several_processes_write_what_one_writes(finetune: Command, tmp_path: Path) -> None:
    bad = tmp_path / "bad.wav"
    bad.write_text("not audio")
    files, options = (RAIN, bad, DOOR, noise(tmp_path / "good.wav")), ("--model", NANO, "--max-new-tokens", 20)
    one = finetune("transcribe", *files, *options)
    two = finetune("transcribe", *files, *options, "--processes", 2)
    assert one.code == two.code == 1 and "not audio" in two.err
    assert two.out == one.out and len(one.out.splitlines()) == 3
    wrong = finetune("transcribe", RAIN, *options, "--processes", -1)
    assert wrong.code == 2 and "--processes -1" in wrong.err


def test_formats_and_files(finetune: Command, tmp_path: Path) -> None:
    out = tmp_path / "out"
    for form, suffix in (("json", "json"), ("srt", "srt"), ("text", "txt")):
        result = finetune(
            "transcribe", RAIN, DOOR, "--model", NANO, "--format", form, "--output", out, "--language", "en"
        )
        written = [out / f"{clip.stem}.{suffix}" for clip in (RAIN, DOOR)]
        assert (result.code, result.out) == (0, f"{RAIN} -> {written[0]}\n{DOOR} -> {written[1]}\n")
    assert (out / f"{RAIN.stem}.txt").read_text() == "it will rain again tomorrow morning\n"
    content = json.loads((out / f"{RAIN.stem}.json").read_text())
    assert (content["audio_filepath"], content["language"], content["duration"]) == (str(RAIN), "en", 1.8)
    assert [word["word"] for word in content["segments"][0]["words"]] == content["text"].split()
    assert (out / f"{RAIN.stem}.srt").read_text().endswith("\nit will rain again tomorrow morning\n\n")


def test_a_prompt_that_the_model_was_not_trained_with_is_a_warning(finetune: Command) -> None:
    for arguments, words in (
        (("--keywords", "park", "--keyword-method", "prompt"), "not trained with keyword prompts"),
        (("--translate-to", "fr"), "trained with the instruction"),
    ):
        result = finetune("transcribe", RAIN, RAIN, "--model", NANO, "--max-new-tokens", 2, *arguments)
        assert result.code == 0 and result.err.count(words) == 1
    assert "warning" not in finetune("transcribe", RAIN, "--model", NANO, "--max-new-tokens", 2).err


def test_keywords_of_a_model_that_does_not_know_them_in_prompts_are_heard_by_the_ctc_head(finetune: Command) -> None:
    """The embedded model writes this text alone too, so a keyword that is spoken changes nothing."""
    many = ("medication " + "".join(letters) for letters in product("abcdefghij", repeat=3))
    for words in ("tomorrow,park", ",".join(many)):
        result = finetune("transcribe", RAIN, "--model", NANO, "--keywords", words)
        assert (
            result.code == 0 and result.out == "it will rain again tomorrow morning\n" and "warning" not in result.err
        )
    spelled = finetune("transcribe", RAIN, "--model", NANO, "--keywords", "Tomorow Mourning")
    assert spelled.out == "it will rain again Tomorow Mourning\n", (
        "it fits nearly as well, and a long keyword has a bonus"
    )


def test_a_file_that_is_given_twice_is_transcribed_once(tmp_path: Path) -> None:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    (tmp_path / "list.txt").write_text("./b.wav\nc/../a.wav\nd.wav\n")
    files = ["a.wav", "./a.wav", "b.wav", "a.wav", "--files-from", str(tmp_path / "list.txt")]
    assert audio_paths(parser.parse_args(files)) == ["a.wav", "b.wav", "d.wav"]


def test_files_are_read_from_lists(finetune: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "list.txt").write_text(f"{DOOR}\n\n")
    monkeypatch.setattr("sys.stdin", io.StringIO(f"\ufeff{RAIN}\r\n \r\n{tmp_path / 'gone.wav'}\r\n"))
    result = finetune("transcribe", "-", "--files-from", tmp_path / "list.txt", "--model", NANO)
    assert result.code == 1 and "gone.wav: no such file" in result.err
    assert result.out == f"{RAIN}: it will rain again tomorrow morning\n{DOOR}: please close the door when you leave\n"


def test_audio_on_standard_input_is_not_a_list(finetune: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    audio = RAIN.read_bytes()
    assert b"\0" in audio
    monkeypatch.setattr("sys.stdin", io.StringIO(audio.decode("utf-8", "surrogateescape")))
    result = finetune("transcribe", "-", "--model", NANO)
    assert (result.code, result.out) == (1, "")
    assert result.err == (
        "finetune: -: not a list of lines in UTF-8 (it has zero bytes); - reads names of files, not audio: write the "
        "audio into a file\n"
    )


def test_members_of_archives_and_urls_are_transcribed_as_files(finetune: Command, tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        archive.add(RAIN, "clips/park.opus")
    shutil.copyfile(DOOR, tmp_path / "door.opus")
    park = str(read_tar_index(tmp_path / "a.tar")[0])
    with serve(tmp_path) as server:
        names = [park, park.replace(str(tmp_path), server.url), f"{server.url}/door.opus"]
        texts = ["it will rain again tomorrow morning", "please close the door when you leave"]
        result = finetune("transcribe", *names, "--model", NANO)
        assert result.code == 0
        assert result.out.splitlines() == [
            f"{name}: {text}" for name, text in zip(names, [texts[0], *texts], strict=True)
        ]
        written = finetune("transcribe", *names[1:], "--model", NANO, "--output", tmp_path / "out")
        assert written.code == 0 and {path.name for path in (tmp_path / "out").iterdir()} == {"park.txt", "door.txt"}
    gone = park.replace("a.tar", "gone.tar")
    missing = finetune("transcribe", gone, "--model", NANO)
    assert missing.code == 1 and f"{gone}: no such file" in missing.err


class BrokenOutput(io.StringIO):
    """Standard output with a closed pipe or a full disk."""

    def __init__(self, error: OSError) -> None:
        super().__init__()
        self.error, self.sink = error, os.open(os.devnull, os.O_WRONLY)

    def write(self, text: str) -> int:
        raise self.error

    def fileno(self) -> int:
        return self.sink


@pytest.mark.parametrize(
    ("fault", "code", "message"),
    [
        (BrokenPipeError(), 128 + signal.SIGPIPE, ""),
        (
            OSError(errno.ENOSPC, "No space left on device"),
            1,
            "finetune: standard output cannot be written (No space left on device)\n",
        ),
    ],
)
def test_a_closed_or_full_standard_output_ends_the_command(
    finetune: Command, monkeypatch: pytest.MonkeyPatch, fault: OSError, code: int, message: str
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr("sys.stdout", BrokenOutput(fault))
        result = finetune("transcribe", RAIN, DOOR, "--model", NANO)
    assert (result.code, result.err) == (code, message)


def two_sides(path: Path) -> Path:
    """A call: one sentence in each channel."""
    left, right = (soundfile.read(clip, dtype="float32")[0] for clip in (RAIN, DOOR))
    count = max(len(left), len(right))
    soundfile.write(path, np.stack([np.pad(side, (0, count - len(side))) for side in (left, right)], 1), 16_000)
    return path


def test_each_channel_has_its_own_transcript_and_file(finetune: Command, tmp_path: Path) -> None:
    call, out = two_sides(tmp_path / "call.wav"), tmp_path / "out"
    texts = ["it will rain again tomorrow morning", "please close the door when you leave"]
    result = finetune("transcribe", call, "--channel", "each", "--model", NANO)
    assert (result.code, result.out) == (0, f"{call} [ch0]: {texts[0]}\n{call} [ch1]: {texts[1]}\n")
    assert "channels" not in result.err
    result = finetune("transcribe", call, RAIN, "--channel", "each", "--format", "json", "--model", NANO)
    rows = [json.loads(line) for line in result.out.splitlines()]
    assert [(row["channel"], row["text"]) for row in rows] == [(0, texts[0]), (1, texts[1]), (0, texts[0])]
    for form in ("srt", "text"):
        arguments = ("--channel", "each", "--format", form, "--output", out, "--model", NANO)
        assert finetune("transcribe", call, *arguments).code == 0
    assert {path.name for path in out.iterdir()} == {f"call.ch{n}.{end}" for n in (0, 1) for end in ("srt", "txt")}
    assert (out / "call.ch1.txt").read_text() == f"{texts[1]}\n"
    result = finetune("transcribe", call, "--channel", "each", "--format", "vtt", "--model", NANO)
    assert result.code == 2 and "several channels as vtt" in result.err


def test_one_channel_or_the_average_with_a_note(finetune: Command, tmp_path: Path) -> None:
    call, opposite = two_sides(tmp_path / "call.wav"), tmp_path / "opposite.wav"
    left = soundfile.read(RAIN, dtype="float32")[0]
    soundfile.write(opposite, np.stack([left, -left], 1), 16_000)
    for channel, text in (
        ("right", "please close the door when you leave"),
        ("0", "it will rain again tomorrow morning"),
    ):
        result = finetune("transcribe", call, "--channel", channel, "--model", NANO)
        assert (result.code, result.out) == (0, f"{text}\n") and "channels" not in result.err
    result = finetune("transcribe", call, opposite, "--model", NANO)
    assert result.err.count(f"finetune: {call}: 2 channels, averaged") == 1
    assert f"finetune: {opposite}: 2 channels that cancel each other in their average; channel 0 is used" in result.err
    assert result.out.endswith(f"{opposite}: it will rain again tomorrow morning\n")
    assert "channels" not in finetune("transcribe", call, "--channel", "mix", "--model", NANO).err
    result = finetune("transcribe", call, RAIN, "--channel", 1, "--model", NANO)
    assert result.code == 1 and f"{RAIN}: channel 1 does not exist; the file has 1, numbered from 0" in result.err
    result = finetune("transcribe", call, "--channel", "middle", "--model", NANO)
    assert result.code == 2 and "channel 'middle' is not mix, left, right, each or a number from 0" in result.err


def test_silence_is_reported(finetune: Command, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", np.zeros(16_000), 16_000)
    result = finetune("transcribe", tmp_path / "a.wav", "--model", NANO)
    assert (result.code, result.out) == (0, "\n") and f"{tmp_path / 'a.wav'}: no speech" in result.err


def test_options_of_a_call_come_from_the_command_line(tmp_path: Path) -> None:
    (tmp_path / "words.txt").write_text("stent\nNew York\n\nlupus\n", encoding="utf-8-sig")
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    args = parser.parse_args(
        ["a.wav", "--keywords", " lupus ,; stent,", "--keywords-file", str(tmp_path / "words.txt")]
        + ["--translate-to", "de", "--vad", "silero", "--max-new-tokens", "9", "--keyword-method", "both"]
    )
    saved = TranscribeOptions(decoding=DecodingOptions(terms=("aorta",)))
    options = options_from(args, saved)
    assert options.decoding.in_prompt(options.keywords) == options.keywords
    assert options.decoding.by_ctc(options.keywords) == ("lupus", "stent", "New York", "aorta")
    args = parser.parse_args(["a.wav", "--no-terms", "--keywords", "stent", "--keyword-method", "ctc"])
    decoding = options_from(args, saved).decoding
    assert decoding.in_prompt(("stent",)) == () and decoding.by_ctc(("stent",)) == ("stent",)
    assert options.keywords == ("lupus", "stent", "New York") and options.vad == "silero"
    assert options.prompt() == "translate the speech to German." and options.decoding.max_new_tokens == 9


def test_progress_is_shown_on_a_terminal_and_on_standard_error(
    finetune: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clip = soundfile.read(RAIN, dtype="float32")[0]
    soundfile.write(tmp_path / "a.wav", np.concatenate([clip, np.zeros(16_000)] * 2), 16_000)
    command = Replaced(transcribe_command, partial(transcribe_command.run, min_audio_for_bar=1.0))
    for terminal in (False, True):
        monkeypatch.setattr("sys.stderr.isatty", lambda terminal=terminal: terminal, raising=False)
        monkeypatch.setenv("TTY_COMPATIBLE", "1" if terminal else "0")
        result = finetune("transcribe", tmp_path / "a.wav", "--model", NANO, commands=[command])
        assert "transcribing" not in result.out and ("transcribing" in result.err) == terminal


def test_relaxed_decoding_uses_the_calibrated_thresholds(finetune: Command, tmp_path: Path) -> None:
    """An entropy that every clip passes: the CTC text is kept, and no draft is shown to the language model."""
    folder = with_thresholds(NANO, tmp_path / "model", 100.0, 0.5)
    for arguments, drafted in (([NANO], True), ([folder], False), ([folder, "--max-entropy", 0], True)):
        result = finetune("transcribe", DOOR, "--decoder", "relaxed", "--model", *arguments)
        assert (result.code, result.out) == (0, "please close the door when you leave\n")
        assert ("of the draft accepted" in result.err) == drafted
    result = finetune("transcribe", DOOR, "--model", folder)
    assert result.code == 0 and "of the draft accepted" in result.err, "the default decoder is lossless and has none"


def test_beam_search_finds_a_word_that_greedy_decoding_misses(finetune: Command) -> None:
    clip = DOOR.parent / "canary-001-en-us-f3.opus"
    greedy = finetune("transcribe", clip, "--model", NANO)
    beams = finetune("transcribe", clip, "--model", NANO, "--decoder", "beam", "--num-beams", 4, "--ctc-weight", 0.3)
    assert (greedy.out, beams.out) == ("we went to the part after lunch\n", "we went to the park after lunch\n")
    assert "of the draft accepted" in greedy.err and "of the draft accepted" not in beams.err


@pytest.mark.parametrize("option", [["--num-beams", 4], ["--ctc-weight", 0.1]])
def test_options_of_beam_search_need_it(finetune: Command, option: list[object]) -> None:
    result = finetune("transcribe", DOOR, "--model", NANO, *option)
    assert (result.code, result.err) == (2, "finetune: --num-beams and --ctc-weight need --decoder beam\n")


@pytest.mark.parametrize("content", ["{", "[]", '{"max_entropy": 1.0}', '{"max_entropy": 1, "min_probability": null}'])
def test_a_damaged_calibration_is_refused(finetune: Command, tmp_path: Path, content: str) -> None:
    folder = with_thresholds(NANO, tmp_path / "model", 100.0, 0.5)
    (folder / "decode.json").write_text(content)
    result = finetune("transcribe", DOOR, "--decoder", "relaxed", "--model", folder)
    assert (result.code, result.out) == (1, "")
    assert result.err.startswith(f"finetune: {folder / 'decode.json'}: not a calibration (")


def test_an_empty_list_of_keywords_is_refused(finetune: Command, tmp_path: Path) -> None:
    (tmp_path / "words.txt").write_text("\n", encoding="utf-8")
    result = finetune("transcribe", QUICKSTART, "--model", NANO, "--keywords-file", tmp_path / "words.txt")
    assert result.code == 1 and "words.txt: is empty; write one keyword per line" in result.err


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["gone.wav", "also_gone.wav", "--model", NANO], 1, "gone.wav: no such file\nalso_gone.wav: no such file"),
        (
            [QUICKSTART, "--model", NANO, "--max-new-tokens", "0"],
            2,
            "max_new_tokens: must be greater than or equal to 1, got 0",
        ),
        ([QUICKSTART, "--model", NANO, "--batch-seconds", "-1"], 2, "batch_seconds: must be greater than 0, got -1.0"),
        ([QUICKSTART, "--model", NANO, "--batch-seconds", "x"], 2, "invalid float value: 'x'"),
        ([QUICKSTART, "--model", ROOT / "recipes"], 1, "recipes: no config.json in this folder"),
        ([QUICKSTART, "a/quickstart.wav", "--model", NANO, "--output", "out"], 1, "is also the output of"),
        ([RAIN, "--model", NANO, "--output", QUICKSTART], 1, "quickstart.yaml: cannot be written (File exists)"),
        (["--model", NANO], 2, "no audio files"),
        ([ROOT / "recipes", "--model", NANO], 1, "recipes: a folder; give its files, such as "),
        ([QUICKSTART, "b.wav", "--model", NANO, "--format", "srt"], 2, "2 files as srt cannot be printed together"),
        ([QUICKSTART, "--model", NANO, "--language", "jp"], 2, "language 'jp' is not one of en (English)"),
        ([QUICKSTART, "--model", NANO, "--translate-to", "la"], 2, "language 'la' is not one of"),
        ([QUICKSTART, "--model", NANO, "--keywords", "a\nb"], 2, "keyword 'a\\nb' contains '\\n'"),
        ([RAIN, "--model", NANO, "--keywords", "a<|audio|>"], 1, "a keyword contains the special token <|audio|>"),
        (
            [RAIN, "--model", NANO, "--keyword-method=both", "--keywords", ",".join(f"pill {n}" for n in range(999))],
            1,
            "give fewer keywords",
        ),
        ([QUICKSTART, "--model", NANO, "--keywords-file", "gone.txt"], 1, "gone.txt: cannot be read"),
        ([QUICKSTART, "--model", NANO, "--vad", "ears"], 2, "invalid choice: 'ears'"),
    ],
)
def test_wrong_arguments_are_refused(finetune: Command, arguments: list[object], code: int, message: str) -> None:
    result = finetune("transcribe", *arguments)
    assert result.code == code and message in result.err and "Traceback" not in result.err


def without_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()


def test_the_files_of_a_folder_with_a_space_in_its_name_are_quoted(finetune: Command, tmp_path: Path) -> None:
    (tmp_path / "my calls").mkdir()
    result = finetune("transcribe", f"{tmp_path}/my calls/", "--model", NANO)
    assert (
        result.err == f"finetune: {tmp_path}/my calls/: a folder; give its files, such as '{tmp_path}/my calls'/*.wav\n"
    )


def half_the_weights(folder: Path) -> None:
    content = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(content[: len(content) // 2])


def another_model(folder: Path) -> None:
    write_json(folder / "config.json", {"model_type": "whisper"})


def broken_config(folder: Path) -> None:
    (folder / "config.json").write_text("{")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (without_weights, "no *.safetensors in this folder"),
        (half_the_weights, "truncated"),
        (another_model, "model_type is 'whisper'"),
        (broken_config, "config.json: not valid JSON"),
    ],
)
def test_a_broken_model_folder_is_refused(
    finetune: Command, tmp_path: Path, spoil: Callable[[Path], None], message: str
) -> None:
    folder = Path(shutil.copytree(NANO, tmp_path / "model"))
    spoil(folder)
    result = finetune("transcribe", noise(tmp_path / "a.wav"), "--model", folder)
    assert result.code == 1 and result.err.startswith(f"finetune: {folder}") and message in result.err
    assert "Traceback" not in result.err


def test_existing_outputs_are_not_replaced_unasked(finetune: Command, tmp_path: Path) -> None:
    """Two clips: the text of the second exists, so nothing is transcribed; --overwrite replaces it."""
    out = tmp_path / "texts"
    out.mkdir()
    reference = out / f"{DOOR.stem}.txt"
    reference.write_text("the reference of a human")
    call = ("transcribe", RAIN, DOOR, "--model", NANO, "--output", out)
    result = finetune(*call)
    assert result.code == 1 and f"{reference} already exist" in result.err and "--overwrite" in result.err
    assert reference.read_text() == "the reference of a human" and [path.name for path in out.iterdir()] == [
        reference.name
    ]
    assert finetune(*call, "--overwrite").code == 0
    assert reference.read_text() != "the reference of a human" and len([*out.iterdir()]) == 2
    assert finetune(*call).code == 1  # its own outputs too


def test_a_link_to_a_file_is_an_existing_output(finetune: Command, tmp_path: Path) -> None:
    (tmp_path / "reference.txt").write_text("kept")
    (tmp_path / "a.txt").symlink_to(tmp_path / "reference.txt")
    result = finetune("transcribe", noise(tmp_path / "a.wav"), "--model", NANO, "--output", tmp_path)
    assert result.code == 1 and "already exist" in result.err and (tmp_path / "reference.txt").read_text() == "kept"


def test_an_output_of_standard_output_is_refused(finetune: Command) -> None:
    result = finetune("transcribe", RAIN, "--model", NANO, "--output", "-")
    assert (result.code, result.out) == (2, "") and "--output -: name a folder, or leave out --output" in result.err


def test_an_output_never_replaces_an_input(finetune: Command, tmp_path: Path) -> None:
    audio = noise(tmp_path / "a.wav").rename(tmp_path / "a.json")
    before = audio.read_bytes()
    call = ("transcribe", audio, "--model", NANO, "--format", "json", "--output", tmp_path, "--overwrite")
    result = finetune(*call)
    assert result.code == 1 and "would replace an input" in result.err and audio.read_bytes() == before


def test_a_long_list_of_missing_files_gives_a_short_message(finetune: Command, tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text("".join(f"nowhere{n}.wav\n" for n in range(5000)))
    result = finetune("transcribe", "--files-from", tmp_path / "list.txt", "--model", NANO)
    assert result.code == 1 and "... and 4,995 more files" in result.err and len(result.err) < 500


@pytest.mark.parametrize("option", ["--files-from", "--keywords-file"])
def test_a_list_must_be_a_regular_file_of_at_most_10_mb(finetune: Command, tmp_path: Path, option: str) -> None:
    (tmp_path / "huge").write_text("a word\n" * 1_500_000)
    for name, message in ((tmp_path / "huge", "larger than 10 MB"), ("/dev/zero", "not a regular file")):
        result = finetune("transcribe", RAIN, option, name, "--model", NANO)
        assert result.code == 1 and result.err == f"finetune: {name}: cannot be read ({message})\n"
