"""The `finetune` command: exit codes, messages, help."""

import argparse
import errno
import json
import logging
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import soundfile
from command import Command, Replaced, noise

from finetune.cli import curve, demo, pseudo_label, stages, suggest, transcribe_command
from finetune.cli import main as cli
from finetune.core.errors import CheckpointError, DataError, Interrupted
from finetune.core.files import write_json

ROOT = Path(__file__).resolve().parents[2]
NANO = ROOT / "data" / "granite-speech-nano"
QUICKSTART = ROOT / "recipes" / "quickstart.yaml"
PARK, DOOR = (
    ROOT / "data/vocabulary/audio/canary" / name for name in ("canary-001-en-us-f3.opus", "canary-002-en-us-m3.opus")
)
COMMANDS = [*stages.HELP, "check", "score", "report", "calibrate", "compare", "transcribe", "demo"]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A folder with recipe.yaml, train, valid and test manifests of two clips each."""
    for split in ("train", "valid", "test"):
        rows = [
            {"audio_filepath": noise(tmp_path / f"{split}{n}.wav").name, "text": f"{split} number {n}"} for n in "ab"
        ]
        (tmp_path / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "recipe.yaml").write_text(
        f"model:\n  base: {NANO}\nruns: {tmp_path / 'runs'}\ndata:\n"
        + "".join(f"  {split}: [{tmp_path / split}.jsonl]\n" for split in ("train", "valid", "test"))
    )
    return tmp_path


def add_row(project: Path, audio: str, text: str = "another one") -> None:
    with (project / "train.jsonl").open("a") as out:
        out.write(json.dumps({"audio_filepath": audio, "text": text}) + "\n")


# Help


def test_help_takes_less_than_0_4_seconds() -> None:
    times = []
    for _ in range(5):
        started = time.perf_counter()
        done = subprocess.run(
            [sys.executable, "-m", "finetune", "--help"], cwd=ROOT, capture_output=True, text=True, check=True
        )
        times.append(time.perf_counter() - started)
    assert all(command in done.stdout for command in COMMANDS)
    assert min(times) < 0.4


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_shows_an_example(finetune: Command, command: str) -> None:
    result = finetune(command, "--help")
    assert result.code == 0 and f"example: finetune {command} " in result.out


def test_a_missing_or_unknown_command_is_wrong_usage(finetune: Command) -> None:
    assert finetune().code == finetune("trian", "x.yaml").code == 2


@pytest.mark.parametrize(
    ("argv", "message", "usage"),
    [
        (["chexk", "a.yaml"], "; did you mean check?", "usage: finetune [-h]"),
        (
            ["transcribe", "a.wav", "--modle", "m"],
            "--model; unrecognized arguments: --modle; did you mean --model?",
            "finetune transcribe",
        ),
        (
            ["transcribe", "a.wav", "--mod=m", "--fromat=srt"],
            "arguments: --fromat=srt; did you mean --format?",
            "finetune",
        ),
        (
            ["segment", "a", "--outptu=d"],
            "--output; unrecognized arguments: --outptu; did you mean --output?",
            "finetune segment",
        ),
        (["check", "a.yaml", "--mesure"], "arguments: --mesure; did you mean --measure?", "finetune check"),
        (["check", "a.yaml", "--st=a=1"], "arguments: --st=a=1; did you mean --set?", "finetune check"),
        (["check", "a.yaml", "--device", "cuda"], "(CUDA_VISIBLE_DEVICES=)", "finetune check"),
        (["transcribe", "a.wav", "--model", "m", "--device=cpu"], "(CUDA_VISIBLE_DEVICES=)", "finetune transcribe"),
        (["score", "a.yaml", "--model", "x"], "--model x; settings of a recipe need --set KEY=VALUE", "finetune score"),
        (["check", "a.yaml", "b.yaml"], "unrecognized arguments: b.yaml", "finetune check"),
        (["check", "a.yaml", "--train.epochs=3"], "a setting needs --set: --set train.epochs=3", "finetune check"),
        (["init", "a", "--goal", "vocab"], "; did you mean vocabulary?", "finetune init"),
        (["init", "a", "--goal", "xyz"], "none)", "finetune init"),
        (["recipes", "lst"], "; did you mean list?", "finetune recipes"),
    ],
)
def test_wrong_usage_names_the_nearest_name(
    argv: list[str], message: str, usage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        cli.main(argv)
    error = capsys.readouterr().err
    assert stop.value.code == 2 and usage in error.split("\n")[0]
    assert error.replace("'", "").rstrip().endswith(message)  # Python 3.14 lists choices without quotes


def test_check_prints_settings_with_their_origin_and_the_trainable_parts(finetune: Command, tmp_path: Path) -> None:
    settings = ["train.epochs=2", f"model.base={NANO}", f"runs={tmp_path}"]  # runs/quickstart can exist
    overrides = [part for setting in settings for part in ("--set", setting)]
    result = finetune("check", QUICKSTART, "--settings", *overrides)
    assert result.code == 0
    origins = {line.split()[0]: line.split()[-1] for line in result.out.splitlines() if line.strip()}
    assert origins["train.warmup"] == "default"
    assert origins["data.train"] == f"{QUICKSTART}:7"
    assert any(line.split() == ["train.epochs", "2", "--set", "train.epochs=2"] for line in result.out.splitlines())
    trains = result.out.partition("trainable:\n")[2].partition("\n\n")[0].splitlines()
    assert {line.split()[0] for line in trains} == {"encoder", "ctc_head", "projector", "lora", "lm_head"}
    assert all(re.fullmatch(r"\w+ +[\d,]+ parameters  in \d+ tensors? of \d+ modules?", line) for line in trains)


def test_check_prints_findings_first_and_only_the_settings_that_differ(finetune: Command, project: Path) -> None:
    result = finetune("check", project / "recipe.yaml", "--set", "train.warmup=0.125")
    title = "\nsettings that differ from the defaults (--settings lists all):\n"
    findings, found, settings = result.out.partition(title)
    assert found and findings.startswith("encoder ") and "\ndata:\n" in findings and "\ntraining:\n" in findings
    rows = {line.split()[0]: line.split()[-1] for line in settings.splitlines()}
    assert rows["train.warmup"] == "train.warmup=0.125" and rows.keys() >= {"name", "model.base", "data.test"}
    assert len(rows) < 20 and [key for key, origin in rows.items() if origin == "default"] == ["name"]  # the file name
    stated = finetune("check", project / "recipe.yaml", "--set", "seed=1")  # its default
    assert "\nseed " not in stated.out


def test_check_counts_rows_and_names_every_missing_file(finetune: Command, tmp_path: Path) -> None:
    result = finetune("check", QUICKSTART)
    rows = len((QUICKSTART.parent.parent / "data/vocabulary/train.jsonl").read_text().splitlines())
    assert f"train {rows:8,} rows  data/vocabulary/train.jsonl\n" in result.out
    noise(tmp_path / "a.wav")
    (tmp_path / "half.jsonl").write_text(
        "".join(json.dumps({"audio_filepath": name, "text": "a"}) + "\n" for name in ("a.wav", "b.wav"))
    )
    result = finetune(
        "check",
        QUICKSTART,
        "--set",
        f"runs={tmp_path}",
        "--set",
        "data.train=gone.jsonl",
        "--set",
        "data.terms=gone.txt",
        "--set",
        "data.replay=hf:org/name:train",
        "--set",
        f"data.valid={tmp_path / 'half.jsonl'}",
        "--set",
        "data.test=~nobody-of-that-name/a.csv",
    )
    assert result.code == 1 and result.err.startswith("finetune: data.train: gone.jsonl: no such file or folder")
    assert f"data.valid: {tmp_path / 'half.jsonl'}: 1 of 2 rows have no audio file\n" in result.err
    assert "data.test: ~nobody-of-that-name/a.csv: not a valid path" in result.err
    assert "\ndata.terms: gone.txt: cannot be read" in result.err
    assert "replay   not opened  hf:org/name:train\n" in result.out
    assert "\nnot opened: checked by `finetune prepare`\n" in result.out


def test_check_shows_the_settings_of_a_goal_and_the_parts_it_trains(finetune: Command, project: Path) -> None:
    result = finetune("check", project / "recipe.yaml", "--set", "train.goal=vocabulary")
    assert result.code == 0
    assert ["parts.lora.rank", "32", "goal", "vocabulary"] in [line.split() for line in result.out.splitlines()]
    opened = {line.split()[0] for line in result.out.partition("trainable:\n")[2].partition("\n\n")[0].splitlines()}
    assert opened == {"projector", "lora", "encoder", "ctc_head"}


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("parts.lora.modules=qproj", "parts.lora.modules: ['qproj'] do not exist in the language model; choose from"),
        ("parts.language_model.layers=99", "parts.language_model.layers: 99, but the language model has only 5"),
    ],
)
def test_check_refuses_trainable_parts_that_the_base_model_lacks(
    finetune: Command, project: Path, override: str, message: str
) -> None:
    result = finetune("check", project / "recipe.yaml", "--set", override)
    assert result.code == 1 and result.err.startswith(f"finetune: {message}")


def test_check_prints_settings_and_data_even_if_the_base_model_is_missing(finetune: Command, project: Path) -> None:
    result = finetune("check", project / "recipe.yaml", "--set", "model.base=./nowhere")
    assert result.code == 1 and result.err.startswith("finetune: ./nowhere: no such folder")
    assert "model.base " in result.out and result.out.startswith("data:\n")


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (Interrupted(120, signal.SIGTERM), 143, "stopped by SIGTERM after step 120; rerun to resume"),
        (Interrupted(None, signal.SIGINT), 130, "stopped by SIGINT; rerun to resume"),
        (Interrupted(0, signal.SIGUSR1), 128 + signal.SIGUSR1, "stopped by SIGUSR1 after step 0; "),
        (KeyboardInterrupt(), 130, "stopped; rerun to resume from the last checkpoint"),
        (CheckpointError("damaged"), 1, "damaged"),
    ],
)
def test_the_exit_code_depends_on_the_error(
    finetune: Command, project: Path, error: BaseException, code: int, message: str
) -> None:
    def fail(args: argparse.Namespace) -> int:
        raise error

    result = finetune("train", project / "recipe.yaml", commands=[Replaced(stages, fail)])
    assert result.code == code and result.out == ""
    assert result.err.startswith(f"finetune: {message}") and result.err.count("\n") == 1


# Recipes and data


def test_prepare_writes_manifests_and_is_skipped_when_repeated(finetune: Command, project: Path) -> None:
    result = finetune("prepare", project / "recipe.yaml")
    assert (result.code, result.err) == (0, "")
    assert "train      2 clips, 2 seconds" in result.out
    assert (project / "runs" / "recipe" / "manifests" / "train.jsonl").is_file()
    assert "prepare: skipped, already done" in finetune("prepare", project / "recipe.yaml").out


def test_an_unknown_recipe_key_is_wrong_usage(finetune: Command, project: Path) -> None:
    recipe = project / "recipe.yaml"
    recipe.write_text(recipe.read_text() + "train:\n  learning_rte: 1e-4\n")
    result = finetune("run", recipe)
    assert result == (
        2,
        "",
        f"finetune: {recipe}:9: unknown key 'train.learning_rte'; did you mean 'train.learning_rate'?\n",
    )


def test_a_contradiction_is_wrong_usage(finetune: Command, project: Path) -> None:
    result = finetune("run", project / "recipe.yaml", "--set", "train.max_canary_loss=0.02")
    assert result == (
        2,
        "",
        "finetune: --set train.max_canary_loss=0.02: train.max_canary_loss: is measured on data.canary, which is "
        "empty; set data.canary\n",
    )


def test_a_missing_recipe_is_wrong_usage(finetune: Command) -> None:
    result = finetune("run", "nowhere.yaml")
    assert result.code == 2 and result.err.startswith("finetune: nowhere.yaml: no such file")


def test_a_missing_data_file_is_reported_with_the_nearest_name(finetune: Command, project: Path) -> None:
    result = finetune("prepare", project / "recipe.yaml", "--set", f"data.test={project}/tests.jsonl")
    assert (result.code, result.err) == (
        1,
        f"finetune: {project}/tests.jsonl: no such file or folder; did you mean {project}/test.jsonl?\n",
    )


def test_a_missing_terms_file_stops_prepare(finetune: Command, project: Path) -> None:
    result = finetune("prepare", project / "recipe.yaml", "--set", "data.terms=terms.txt")
    assert result.code == 1 and "terms.txt: cannot be read" in result.err


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "train.jsonl: the corpus has no rows"),
        ("path,sentence\na.wav,hello\n", "train.jsonl:1: not JSON"),
        (
            '{"wave": "a.wav", "words": "x"}\n',
            "train.jsonl: no column for audio_filepath; the columns are 'wave', 'words'",
        ),
        ('{"audio_filepath": "gone.wav", "text": "hello"}\n', "train.jsonl: 0 of 1 audio files exist; tried"),
    ],
)
def test_an_invalid_manifest_is_refused(finetune: Command, project: Path, content: str, message: str) -> None:
    (project / "train.jsonl").write_text(content)
    result = finetune("prepare", project / "recipe.yaml")
    assert result.code == 1 and message in result.err and "Traceback" not in result.err


def write_truncated_wav(path: Path) -> None:
    content = noise(path).read_bytes()
    path.write_bytes(content[: len(content) // 2])


def write_nan_wav(path: Path) -> None:
    soundfile.write(path, np.full(16_000, np.nan, np.float32), 16_000, subtype="FLOAT")


@pytest.mark.parametrize(
    ("spoil", "text", "message"),
    [
        (write_truncated_wav, "another one", "truncated: the header states"),
        (lambda path: path.write_text("hello there"), "another one", "not audio in a supported format"),
        (write_nan_wav, "another one", "samples are NaN or infinite"),
        (noise, "now <|audio|> again", "special token in transcript: 1"),
        (noise, " ", "empty transcript: 1"),
        (lambda path: None, "another one", "bad.wav: no such file"),
    ],
)
def test_an_unusable_clip_is_reported_with_its_line_and_stops_prepare(
    finetune: Command, project: Path, spoil: Callable[[Path], object], text: str, message: str
) -> None:
    spoil(project / "bad.wav")
    add_row(project, "bad.wav", text)
    result = finetune("prepare", project / "recipe.yaml")
    assert result.code == 1
    assert message in result.out and f"bad ({project / 'train.jsonl'}:3)" in result.out
    assert result.err == (
        "finetune: data.train: 1 of 3 rows are unusable, more than data.max_bad_fraction 0.02 allows; "
        "fix the rows or raise data.max_bad_fraction\n"
    )
    result = finetune("prepare", project / "recipe.yaml", "--set", "data.max_bad_fraction=0.5")
    assert result.code == 0 and "1 of 3 rows dropped" in result.out


def test_audio_of_test_in_train_stops_prepare(finetune: Command, project: Path) -> None:
    add_row(project, "testa.wav", "other words")
    result = finetune("prepare", project / "recipe.yaml")
    assert result.code == 1 and "data.test: the audio of 1 of its utterances is also in data.train" in result.err
    assert finetune("prepare", project / "recipe.yaml", "--set", "data.allow_leaks=yes").code == 0


def test_a_run_directory_of_another_recipe_is_refused(finetune: Command, project: Path) -> None:
    assert finetune("prepare", project / "recipe.yaml").code == 0
    (project / "runs" / "recipe" / "checkpoint").mkdir()
    result = finetune("train", project / "recipe.yaml", "--set", "train.epochs=9")
    assert result.code == 1 and "holds a run of another recipe (differs in train.epochs)" in result.err
    assert "/runs/recipe/resolved.json or the same --set" in result.err
    assert "Traceback" not in result.err


def test_a_folder_that_is_not_a_run_directory_is_refused(finetune: Command, project: Path) -> None:
    (project / "runs" / "recipe").mkdir(parents=True)
    (project / "runs" / "recipe" / "thesis.txt").write_text("text")
    result = finetune("prepare", project / "recipe.yaml")
    assert result.code == 1 and "exists and is not a run directory" in result.err


def test_a_report_of_an_earlier_versions_run_is_refused(finetune: Command, tmp_path: Path) -> None:
    write_json(tmp_path / "recipe.json", {"train": {"shrink": [0.9]}})
    result = finetune("report", tmp_path)
    assert result.code == 1 and "train.shrink, now train.interpolate" in result.err
    assert "Train again under another name" in result.err and "Traceback" not in result.err


# Stopping


@pytest.mark.parametrize(
    ("module", "command", "message"),
    [
        (transcribe_command, ["transcribe", PARK, "--model", NANO], "finetune: stopped\n"),
        (stages, ["train", QUICKSTART], "finetune: stopped; rerun to resume from the last checkpoint\n"),
        (stages, ["prepare", QUICKSTART], "finetune: stopped; rerun to resume\n"),
        (curve, ["curve", QUICKSTART], "finetune: stopped; rerun to resume\n"),
        (suggest, ["suggest", NANO, PARK, "-o", "next.jsonl"], "finetune: stopped; rerun to resume\n"),
        (pseudo_label, ["pseudo-label", NANO, PARK, "-o", "p.jsonl"], "finetune: stopped; rerun to resume\n"),
    ],
)
def test_only_commands_with_checkpoints_mention_resuming(
    finetune: Command, module: cli.Command, command: list[object], message: str
) -> None:
    def stop(args: argparse.Namespace) -> int:
        raise KeyboardInterrupt

    result = finetune(*command, commands=[Replaced(module, stop)])
    assert (result.code, result.err) == (130, message)


def test_a_full_disk_is_reported_without_a_traceback(finetune: Command) -> None:
    def fail(args: argparse.Namespace) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    result = finetune("train", QUICKSTART, commands=[Replaced(stages, fail)])
    assert result == (1, "", "finetune: [Errno 28] No space left on device; free some disk space, then rerun\n")


def test_a_package_that_cannot_be_imported_leads_to_the_doctor(finetune: Command) -> None:
    """The pip command has the packages of a model only, not those of a training."""

    def fail(args: argparse.Namespace) -> int:
        raise ImportError("cannot import name 'x' from 'accelerate'", name="accelerate")

    result = finetune("train", QUICKSTART, commands=[Replaced(stages, fail)])
    assert result.code == 1 and result.err.endswith("that do not fit are named by: finetune doctor\n")


def test_the_command_restores_the_logging_of_its_process(finetune: Command) -> None:
    before = (list(logging.root.handlers), logging.root.level)
    finetune("check", "nowhere.yaml")
    finetune("--help")
    assert (list(logging.root.handlers), logging.root.level) == before


LOGS = """
import argparse, logging, sys
from finetune.cli.main import main
def run(args):
    {lines}
    return 0
class Log:
    def add_parser(self, subparsers):
        subparsers.add_parser("log").set_defaults(run=run)
code = main(["log"], [Log()])
sys.stdout = None  # so that Python does not report the full device at its exit
sys.exit(code)
"""
LOG, PRINT = "logging.getLogger('finetune').info('log')", "print('print')"


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_log_message_to_a_full_standard_output_prints_no_traceback(unbuffered: str) -> None:
    env = os.environ | {"PYTHONUNBUFFERED": unbuffered}
    results = []
    for lines in (LOG, f"{LOG}; {PRINT}"):
        with open("/dev/full", "w") as full:
            command = [sys.executable, "-c", LOGS.format(lines=lines)]
            results.append(subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, env=env))
    only_log, printed = results
    assert (only_log.returncode, only_log.stderr) == (0, "")
    assert printed.returncode == 1 and re.fullmatch(r"finetune: .*No space left on device.*\n", printed.stderr)


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_an_error_that_cannot_be_printed_keeps_its_exit_code(unbuffered: str) -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "finetune", "check", "nowhere.yaml"],
            stdout=full,
            stderr=full,
            cwd=ROOT,
            env=os.environ | {"PYTHONUNBUFFERED": unbuffered},
        )
    assert done.returncode == 2


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_log_messages_and_printed_lines_stay_in_order(unbuffered: str) -> None:
    code, env = LOGS.format(lines=f"{PRINT}; {LOG}; {PRINT}; {LOG}"), os.environ | {"PYTHONUNBUFFERED": unbuffered}
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env, check=True)
    assert result.stdout.split() == ["print", "log", "print", "log"]


@pytest.mark.parametrize("encoding", ["latin-1", "ascii"])
def test_text_that_the_terminal_cannot_show_is_escaped(tmp_path: Path, encoding: str) -> None:
    """The names and texts of two clips; the files are UTF-8."""
    for name, text in (("test", "東京 one"), ("hyp", "東京 naïve"), ("other", "")):
        row = {"id": "東京", "audio_filepath": "a.wav", "duration": 1, "text": text, "pred_text": text}
        (tmp_path / f"{name}.jsonl").write_text(json.dumps(row, ensure_ascii=False) + "\n", encoding="utf-8")
    noise(tmp_path / "a.wav")
    (tmp_path / "東.yaml").write_text("ñ: 1\n", encoding="utf-8")
    environment = {**os.environ, "PYTHONIOENCODING": encoding, "PYTHONPATH": str(ROOT)}
    call = partial(subprocess.run, cwd=tmp_path, env=environment, capture_output=True)
    start = (sys.executable, "-m", "finetune")
    done = call([*start, "compare", "hyp.jsonl", "other.jsonl", "--manifest", "test.jsonl", "--json", "out.json"])
    assert done.returncode == 0 and b"Traceback" not in done.stderr
    assert "東京" in (tmp_path / "out.json").read_text(encoding="utf-8")
    done = call([*start, "check", "東.yaml"])
    assert done.returncode == 2 and b"\\u6771.yaml:1: unknown key" in done.stderr


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (PermissionError(errno.EACCES, "Permission denied", "x.json"), "x.json: cannot be read or written (Permission"),
        (MemoryError(), "not enough memory"),
        (KeyError("kind"), "unexpected KeyError in"),
    ],
)
def test_an_unexpected_error_is_one_line(finetune: Command, error: Exception, message: str) -> None:
    def fail(args: argparse.Namespace) -> int:
        raise error

    result = finetune("demo", "x", commands=[Replaced(demo, fail)])
    assert result.code == 1 and result.err.startswith(f"finetune: {message}") and result.err.count("\n") == 1
    if saved := re.search(r"which is in (\S+)", result.err):
        assert "Traceback" in Path(saved[1]).read_text() and "KeyError" in Path(saved[1]).read_text()
        Path(saved[1]).unlink()


def test_a_message_is_short(finetune: Command) -> None:
    def fail(args: argparse.Namespace) -> int:
        raise DataError("\n".join(["a" * 100_000] * 500))

    result = finetune("demo", "x", commands=[Replaced(demo, fail)])
    assert result.code == 1 and len(result.err) < 120_000 and "... and 400 more lines" in result.err
