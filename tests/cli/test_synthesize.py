"""`finetune synthesize` with programs as voices: results, check by the model, stop and resume, wrong arguments."""

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import soundfile
from command import Command
from conftest import ROOT, embedded

from finetune.core.files import read_jsonl
from finetune.data.manifest import read_manifest

TONE = """
import sys, time, wave
voice, out, text = sys.argv[1:]
{before}
with wave.open(out, "wb") as file:
    file.setnchannels(1), file.setsampwidth(2), file.setframerate(8000)
    file.writeframes(bytes({loud} * (index * 7919 + len(text)) % 251 for index in range(8000)))
"""


def program(folder: Path, before: str = "", loud: int = 1) -> str:
    """A template of a program that runs `before` and writes half a second of noise, or of silence (`loud` 0)."""
    source = folder / "tone.py"
    source.write_text(TONE.format(before=before, loud=loud))
    return f"{shlex.quote(sys.executable)} {shlex.quote(str(source))} {{voice}} {{out}} {{text}}"


@pytest.fixture
def terms(tmp_path: Path) -> Path:
    path = tmp_path / "terms.txt"
    path.write_text("foo\nBar Baz\n")
    return path


def call(
    finetune: Command, terms: Path, out: Path, template: str, *more: object, voices: str = "ab"
) -> tuple[int, str, str]:
    names = [arg for voice in voices for arg in ("--voice", f"command:{voice}")]
    result = finetune(
        "synthesize", terms, "-o", out, *names, "--command", template, "--no-check", "--per-term", 2, *more
    )
    return result.code, result.out, result.err


def test_clips_manifest_and_summary(finetune: Command, terms: Path, tmp_path: Path) -> None:
    code, out, _ = call(finetune, terms, tmp_path / "o", program(tmp_path))
    assert code == 0 and "8 clips, 0.1 minutes, 2 voices" in out and "2 terms with 4 clips or more each" in out
    clips = read_manifest(tmp_path / "o" / "clips.jsonl")
    assert {clip.speaker for clip in clips} == {"command:a", "command:b"}
    assert {str(clip.extra["term"]) in clip.text for clip in clips} == {True}
    assert {(clip.extra["synthetic"], clip.extra["engine"], clip.language) for clip in clips} == {
        (True, "command", "en")
    }
    for clip in clips:
        info = soundfile.info(tmp_path / "o" / clip.audio_filepath)
        assert (info.samplerate, info.channels, info.duration) == (16_000, 1, clip.duration)
    assert (tmp_path / "o" / "set_aside.jsonl").read_text() == ""
    summary = json.loads((tmp_path / "o" / "summary.json").read_text())
    assert (summary["clips"], summary["fewest_clips_of_a_term"], summary["options"]["per_term"]) == (8, 4, 2)


def test_two_runs_are_equal_with_any_number_of_workers(finetune: Command, terms: Path, tmp_path: Path) -> None:
    template = program(tmp_path)
    for number in (1, 3):
        assert call(finetune, terms, tmp_path / str(number), template, "--workers", number)[0] == 0
    one, three = (
        {path.relative_to(folder): path.read_bytes() for path in sorted(folder.rglob("*.*l*"))}
        for folder in (tmp_path / "1", tmp_path / "3")
    )
    assert one == three and len(one) == 10


def test_a_voice_that_fails_half_way_keeps_its_clips_and_the_rest_is_made_later(
    finetune: Command, terms: Path, tmp_path: Path
) -> None:
    limit = tmp_path / "limit"
    template = program(
        tmp_path,
        f"import glob\nif len(glob.glob({str(tmp_path / 'o/audio/*.flac')!r})) >= int(open({str(limit)!r}).read()):\n"
        "    sys.exit('the licence ended')",
    )
    limit.write_text("3")
    code, _, err = call(finetune, terms, tmp_path / "o", template, "--workers", 1)
    assert code == 1 and "voice command:b, '" in err and "tone.py b " in err and "the licence ended" in err
    assert "3 of 8 clips are finished and are kept in" in err and "rerun the same command to resume" in err
    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "o" / "audio").iterdir()}
    assert len(kept) == 3 and not [*(tmp_path / "o").glob("*.json*")]
    limit.write_text("99")
    code, out, _ = call(finetune, terms, tmp_path / "o", template)
    assert code == 0 and "3 of 8 clips exist already" in out
    assert all(path.stat().st_mtime_ns == when for path, when in kept.items())
    assert len(read_manifest(tmp_path / "o" / "clips.jsonl")) == 8


def test_a_voice_that_fails_is_not_tried_with_all_clips(finetune: Command, terms: Path, tmp_path: Path) -> None:
    calls = tmp_path / "calls"
    template = program(tmp_path, f"open({str(calls)!r}, 'a').write('x')\nsys.exit('no licence')")
    code, _, err = call(finetune, terms, tmp_path / "o", template, "--workers", 1, "--per-term", 20)
    assert code == 1 and "0 of 80 clips are finished" in err and len(calls.read_text()) < 40


@pytest.mark.slow
def test_a_killed_run_leaves_no_half_file(terms: Path, tmp_path: Path) -> None:
    template = program(tmp_path, "time.sleep(0.3)")
    args = ["synthesize", str(terms), "-o", str(tmp_path / "o"), "--voice", "command:a", "--command", template]
    command = [sys.executable, "-m", "finetune", *args, "--no-check", "--per-term", "20"]
    running = subprocess.Popen(command, cwd=ROOT, start_new_session=True, env={**os.environ, "PYTHONPATH": str(ROOT)})
    audio = tmp_path / "o" / "audio"
    deadline = time.monotonic() + 60
    while len([*audio.glob("*.flac")]) < 2 and time.monotonic() < deadline:
        time.sleep(0.02)
    os.killpg(running.pid, signal.SIGKILL)
    running.wait()
    finished = [*audio.glob("*.flac")]
    assert 2 <= len(finished) < 40 and {soundfile.info(path).frames for path in finished} == {8000}
    assert not [*(tmp_path / "o").glob("*.json*")]


def test_results_of_other_arguments_are_replaced_on_request_only(
    finetune: Command, terms: Path, tmp_path: Path
) -> None:
    template, out = program(tmp_path), tmp_path / "o"
    assert call(finetune, terms, out, template)[0] == 0
    before = (out / "clips.jsonl").read_bytes()
    assert call(finetune, terms, out, template)[0] == 0  # the same arguments
    code, _, err = call(finetune, terms, out, template, "--seed", 1)
    assert code == 1 and "clips.jsonl: exists already, made with other arguments" in err
    assert (out / "clips.jsonl").read_bytes() == before
    assert call(finetune, terms, out, template, "--seed", 1, "--overwrite")[0] == 0
    assert len([*(out / "audio").iterdir()]) == 8 and (out / "clips.jsonl").read_bytes() != before
    (out / "clips.jsonl").write_text('{"text": "a manifest of something else"}\n')
    code, _, err = call(finetune, terms, out, template)
    assert code == 1 and "clips.jsonl: exists already, made with other arguments" in err


def test_a_damaged_clip_is_named(finetune: Command, terms: Path, tmp_path: Path) -> None:
    template, out = program(tmp_path), tmp_path / "o"
    assert call(finetune, terms, out, template)[0] == 0
    damaged = sorted((out / "audio").iterdir())[3]
    damaged.write_bytes(b"fLaC and no more")
    code, _, err = call(finetune, terms, out, template)
    assert code == 1 and f"{damaged}: cannot be read; delete this file and run the same command again" in err


def test_a_lexicon_changes_what_is_spoken_not_the_text(finetune: Command, terms: Path, tmp_path: Path) -> None:
    lexicon = tmp_path / "lexicon.txt"
    lexicon.write_text("bar baz\tbarbers\nfoo\t/fuː/\n")
    assert call(finetune, terms, tmp_path / "o", program(tmp_path), "--lexicon", lexicon)[0] == 0
    for row in read_jsonl(tmp_path / "o" / "clips.jsonl"):
        if row["term"] == "foo":
            assert "spoken_as" not in row  # programs take no IPA
        else:
            assert row["spoken_as"] == str(row["text"]).replace("Bar Baz", "barbers")


def test_the_model_sets_clips_aside_whose_general_words_fail(finetune: Command, nano: Path, tmp_path: Path) -> None:
    """One voice plays a clip that the embedded model transcribes, one the other way round, one is silent."""
    clip = embedded("canary", 20)[-1]
    source = tmp_path / "play.py"
    source.write_text(f"""
import sys, numpy, soundfile
wave, rate = soundfile.read({clip.audio_filepath!r})
wave = {{"good": wave, "backward": wave[::-1], "silent": wave * 0}}[sys.argv[1]]
soundfile.write(sys.argv[2], wave, rate, format="WAV")
""")
    sentences = tmp_path / "sentences.txt"
    sentences.write_text(clip.text)
    args = ["synthesize", sentences, "--kind", "sentences", "-o", tmp_path / "o", "--model", nano]
    args += ["--command", f"{sys.executable} {source} {{voice}} {{out}}", "--voices-per-sentence", 3]
    args += [arg for name in ("good", "backward", "silent") for arg in ("--voice", f"command:{name}")]
    result = finetune(*args)
    assert result.code == 0, result.err
    assert [row["voice"] for row in read_jsonl(tmp_path / "o" / "clips.jsonl")] == ["good"]
    aside = {str(row["voice"]): row for row in read_jsonl(tmp_path / "o" / "set_aside.jsonl")}
    assert aside["command:silent"]["reason"] == "the voice wrote no sound"
    assert str(aside["command:backward"]["reason"]).startswith("the model misses ")
    assert isinstance(aside["command:backward"]["pred_text"], str)
    assert "set aside: 1 clip: the voice wrote no sound" in result.out


def test_no_clip_is_exit_code_1(finetune: Command, terms: Path, tmp_path: Path) -> None:
    code, out, _ = call(finetune, terms, tmp_path / "o", program(tmp_path, loud=0))
    assert code == 1 and "no clip was kept" in out and len(read_jsonl(tmp_path / "o" / "set_aside.jsonl")) == 8


@pytest.mark.parametrize(
    ("more", "code", "message"),
    [
        (["--voice", "piper:no.onnx"], 1, "voice piper:no.onnx: "),
        (["--voice", "siri:bob"], 2, "is not ENGINE:VOICE with an engine of espeak-ng"),
        (["--kind", "sentences", "--templates", "x"], 2, "need terms, not --kind sentences"),
        (["--terms", "x"], 2, "--terms: SOURCE has the terms already"),
        (["--templates", "no"], 1, "no: cannot be read (No such file or directory)"),
        (["--language", "de"], 2, "--language de: there are built-in sentences for en only"),
        (["--speed", "0.9"], 2, "speed: must be less than or equal to 0.5"),
        (["--workers", "-1"], 2, "--workers: must be 0 or more"),
        (["--writer", "gpt"], 2, "must have the form openai:MODEL"),
    ],
)
def test_wrong_arguments(
    more: list[str], code: int, message: str, finetune: Command, terms: Path, tmp_path: Path
) -> None:
    result = call(finetune, terms, tmp_path / "o", program(tmp_path), *more)
    assert result[0] == code and message in result[2]
    assert not [*(tmp_path / "o").rglob("*.*")]


def test_a_folder_that_cannot_be_written_fails_before_any_clip(finetune: Command, terms: Path, tmp_path: Path) -> None:
    for out in (terms, terms / "o", Path("/proc/o")):
        code, _, err = call(finetune, terms, out, "no_such_program {out}")
        assert code == 1 and f"{out}: cannot be written (" in err and "no_such_program" not in err


def test_a_missing_model_of_the_check_is_an_error_that_names_the_options(finetune: Command, tmp_path: Path) -> None:
    (tmp_path / "terms.txt").write_text("losartan\n")
    args = ["--voice", "command:x", "--command", "true", "--model", tmp_path / "none"]
    result = finetune("synthesize", tmp_path / "terms.txt", "-o", tmp_path / "o", *args)
    assert result.code == 1 and "none: no such folder" in result.err
    assert "--model names the model that checks the clips, --no-check keeps all clips without it" in result.err
