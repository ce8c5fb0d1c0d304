"""The command as a person meets it: exit codes, messages, help."""

import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
from command import Command, noise

from finetune.cli import main as cli
from finetune.cli.main import STAGES
from finetune.core.errors import CheckpointError, Interrupted

ROOT = Path(__file__).resolve().parents[2]
NANO = ROOT / "data" / "granite-speech-nano"
QUICKSTART = ROOT / "recipes" / "quickstart.yaml"
PARK, DOOR = (
    ROOT / "data/vocabulary/audio/canary" / name for name in ("canary-001-en-us-f3.opus", "canary-002-en-us-m3.opus")
)
COMMANDS = [*STAGES, "check", "score", "calibrate", "compare", "transcribe"]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A folder with mine.yaml, train, valid and test manifests of two clips each."""
    for split in ("train", "valid", "test"):
        rows = [
            {"audio_filepath": noise(tmp_path / f"{split}{n}.wav").name, "text": f"{split} number {n}"} for n in "ab"
        ]
        (tmp_path / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "mine.yaml").write_text(
        f"model:\n  base: {NANO}\nruns: {tmp_path / 'runs'}\ndata:\n"
        + "".join(f"  {split}: [{tmp_path / split}.jsonl]\n" for split in ("train", "valid", "test"))
    )
    return tmp_path


def add_row(project: Path, audio: str, text: str = "another one") -> None:
    with (project / "train.jsonl").open("a") as out:
        out.write(json.dumps({"audio_filepath": audio, "text": text}) + "\n")


# Help


def test_help_is_there_at_once() -> None:
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
    said = finetune(command, "--help")
    assert said.code == 0 and f"example: finetune {command} " in said.out


def test_no_command_is_wrong_usage(finetune: Command) -> None:
    assert finetune().code == finetune("trian", "x.yaml").code == 2


def test_check_prints_settings_with_their_origin_and_what_would_be_trained(finetune: Command) -> None:
    said = finetune("check", QUICKSTART, "--set", "train.epochs=2", "--set", f"model.base={NANO}")
    assert said.code == 0
    origins = {line.split()[0]: line.split()[-1] for line in said.out.splitlines() if line.strip()}
    assert origins["train.warmup"] == "default"
    assert origins["data.train"] == f"{QUICKSTART}:7"
    assert any(line.split() == ["train.epochs", "2", "--set", "train.epochs=2"] for line in said.out.splitlines())
    trains = said.out.partition("trains:\n")[2].partition("\n\n")[0].splitlines()
    assert {line.split()[0] for line in trains} == {"encoder", "ctc_head", "projector", "lora", "lm_head"}
    assert all(re.fullmatch(r"\w+ +[\d,]+ parameters  in \d+ tensors of \d+ modules", line) for line in trains)


def test_check_counts_the_data_and_names_all_that_is_missing(finetune: Command, tmp_path: Path) -> None:
    said = finetune("check", QUICKSTART)
    rows = len((QUICKSTART.parent.parent / "data/vocabulary/train.jsonl").read_text().splitlines())
    assert f"train {rows:8,} rows  data/vocabulary/train.jsonl\n" in said.out
    noise(tmp_path / "a.wav")
    (tmp_path / "half.jsonl").write_text(
        "".join(json.dumps({"audio_filepath": name, "text": "a"}) + "\n" for name in ("a.wav", "b.wav"))
    )
    said = finetune(
        "check",
        QUICKSTART,
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
    assert said.code == 1 and said.err.startswith("finetune: data.train: gone.jsonl: no such file or folder")
    assert f"data.valid: {tmp_path / 'half.jsonl'}: the audio of 1 of 2 rows is not there\n" in said.err
    assert "data.test: ~nobody-of-that-name/a.csv: cannot be looked for" in said.err
    assert "\ndata.terms: gone.txt: a list of terms that cannot be read" in said.err
    assert "replay   not opened  hf:org/name:train\n" in said.out


def test_check_tells_what_a_goal_opens(finetune: Command, project: Path) -> None:
    said = finetune("check", project / "mine.yaml", "--set", "train.goal=vocabulary")
    assert said.code == 0
    assert ["parts.lora.rank", "32", "goal", "vocabulary"] in [line.split() for line in said.out.splitlines()]
    opened = {line.split()[0] for line in said.out.partition("trains:\n")[2].partition("\n\n")[0].splitlines()}
    assert opened == {"projector", "lora", "encoder", "ctc_head"}


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("parts.lora.modules=qproj", "parts.lora.modules: ['qproj'] match nothing in the language model; there are"),
        ("parts.language_model.layers=99", "parts.language_model.layers: 99, but the language model has 5"),
    ],
)
def test_check_refuses_parts_that_the_base_has_not(
    finetune: Command, project: Path, override: str, message: str
) -> None:
    said = finetune("check", project / "mine.yaml", "--set", override)
    assert said.code == 1 and said.err.startswith(f"finetune: {message}")


def test_check_tells_the_settings_even_of_a_base_model_that_is_not_there(finetune: Command, project: Path) -> None:
    said = finetune("check", project / "mine.yaml", "--set", "model.base=./nowhere")
    assert said.code == 1 and said.err.startswith("finetune: ./nowhere: no config.json there")
    assert "train.epochs" in said.out and "\ndata:\n" in said.out


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (
            Interrupted(120, signal.SIGTERM),
            143,
            "stopped by SIGTERM after step 120; the same command goes on from there",
        ),
        (Interrupted(None, signal.SIGINT), 130, "stopped by SIGINT; the same command goes on from there"),
        (Interrupted(0, signal.SIGUSR1), 128 + signal.SIGUSR1, "stopped by SIGUSR1 after step 0; "),
        (KeyboardInterrupt(), 130, "stopped; the same command goes on from the last checkpoint"),
        (CheckpointError("damaged"), 1, "damaged"),
    ],
)
def test_how_a_run_ended_is_the_exit_code(
    finetune: Command, project: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException, code: int, message: str
) -> None:
    def end(*_: object) -> None:
        raise error

    monkeypatch.setattr("finetune.pipeline.run_recipe", end)
    said = finetune("train", project / "mine.yaml")
    assert said.code == code and said.out == ""
    assert said.err.startswith(f"finetune: {message}") and said.err.count("\n") == 1


# Recipes and data


def test_a_good_project_is_prepared(finetune: Command, project: Path) -> None:
    said = finetune("prepare", project / "mine.yaml")
    assert (said.code, said.err) == (0, "")
    assert "train      2 clips, 2.0 s" in said.out
    assert (project / "runs" / "mine" / "manifests" / "train.jsonl").is_file()
    assert "prepare: done before" in finetune("prepare", project / "mine.yaml").out


def test_a_misspelt_key_is_wrong_usage(finetune: Command, project: Path) -> None:
    recipe = project / "mine.yaml"
    recipe.write_text(recipe.read_text() + "train:\n  learning_rte: 1e-4\n")
    said = finetune("run", recipe)
    assert said == (
        2,
        "",
        f"finetune: {recipe}:9: unknown key 'train.learning_rte'; did you mean 'train.learning_rate'?\n",
    )


def test_a_contradiction_is_wrong_usage(finetune: Command, project: Path) -> None:
    said = finetune("run", project / "mine.yaml", "--set", "train.max_canary_loss=0.02")
    assert said == (
        2,
        "",
        "finetune: --set train.max_canary_loss=0.02: train.max_canary_loss: needs data.canary to measure it on\n",
    )


def test_a_missing_recipe_is_wrong_usage(finetune: Command) -> None:
    said = finetune("run", "nowhere.yaml")
    assert said.code == 2 and said.err.startswith("finetune: nowhere.yaml: no such file")


def test_a_missing_data_file_is_named_with_its_neighbour(finetune: Command, project: Path) -> None:
    said = finetune("prepare", project / "mine.yaml", "--set", f"data.test={project}/tests.jsonl")
    assert (said.code, said.err) == (
        1,
        f"finetune: {project}/tests.jsonl: no such file or folder; did you mean {project}/test.jsonl?\n",
    )


def test_a_missing_list_of_terms_is_found_before_training(finetune: Command, project: Path) -> None:
    said = finetune("prepare", project / "mine.yaml", "--set", "data.terms=terms.txt")
    assert said.code == 1 and "terms.txt: a list of terms that cannot be read" in said.err


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "train.jsonl: holds no rows"),
        ("path,sentence\na.wav,hello\n", "train.jsonl:1: not JSON"),
        (
            '{"wave": "a.wav", "words": "x"}\n',
            "train.jsonl: no column for audio_filepath; the columns are 'wave', 'words'",
        ),
        ('{"audio_filepath": "gone.wav", "text": "hello"}\n', "train.jsonl: 0 of 1 audio files found; tried"),
    ],
)
def test_a_manifest_that_is_none_is_refused(finetune: Command, project: Path, content: str, message: str) -> None:
    (project / "train.jsonl").write_text(content)
    said = finetune("prepare", project / "mine.yaml")
    assert said.code == 1 and message in said.err and "Traceback" not in said.err


def half_a_wav(path: Path) -> None:
    content = noise(path).read_bytes()
    path.write_bytes(content[: len(content) // 2])


def not_a_number(path: Path) -> None:
    soundfile.write(path, np.full(16_000, np.nan, np.float32), 16_000, subtype="FLOAT")


@pytest.mark.parametrize(
    ("spoil", "text", "message"),
    [
        (half_a_wav, "another one", "cut short: the header promises"),
        (lambda path: path.write_text("hello there"), "another one", "not audio that can be decoded"),
        (not_a_number, "another one", "holds samples that are not finite"),
        (noise, "now <|audio|> again", "special token in text: 1"),
        (noise, " ", "empty text: 1"),
        (lambda path: None, "another one", "bad.wav: no such file"),
    ],
)
def test_a_bad_clip_is_named_with_its_line_and_stops_the_run(
    finetune: Command, project: Path, spoil: Callable[[Path], object], text: str, message: str
) -> None:
    spoil(project / "bad.wav")
    add_row(project, "bad.wav", text)
    said = finetune("prepare", project / "mine.yaml")
    assert said.code == 1
    assert message in said.out and f"bad ({project / 'train.jsonl'}:3)" in said.out
    assert said.err == (
        "finetune: data.train: 1 of 3 rows are unusable, more than data.max_bad_fraction 0.02 allows; "
        "mend them or raise it\n"
    )
    said = finetune("prepare", project / "mine.yaml", "--set", "data.max_bad_fraction=0.5")
    assert said.code == 0 and "1 of 3 dropped" in said.out


def test_a_test_sentence_in_train_stops_the_run(finetune: Command, project: Path) -> None:
    add_row(project, "traina.wav", "Test number A!")
    said = finetune("prepare", project / "mine.yaml")
    assert said.code == 1 and "data.test: 1 of its clips stand in data.train too" in said.err
    assert finetune("prepare", project / "mine.yaml", "--set", "data.allow_leaks=yes").code == 0


def test_the_folder_of_another_run_is_refused(finetune: Command, project: Path) -> None:
    assert finetune("prepare", project / "mine.yaml").code == 0
    (project / "runs" / "mine" / "checkpoint").mkdir()
    said = finetune("train", project / "mine.yaml", "--set", "train.epochs=9")
    assert said.code == 1 and "holds a run of another recipe (differs in train.epochs)" in said.err
    assert "Traceback" not in said.err


def test_a_folder_that_is_no_run_is_refused(finetune: Command, project: Path) -> None:
    (project / "runs" / "mine").mkdir(parents=True)
    (project / "runs" / "mine" / "thesis.txt").write_text("mine")
    said = finetune("prepare", project / "mine.yaml")
    assert said.code == 1 and "exists and is not a run directory" in said.err


# Stopping


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (["transcribe", PARK, "--model", NANO], "finetune: stopped\n"),
        (["train", QUICKSTART], "finetune: stopped; the same command goes on from the last checkpoint\n"),
    ],
)
def test_a_stopped_command_promises_only_what_it_keeps(
    finetune: Command, monkeypatch: pytest.MonkeyPatch, command: list[object], message: str
) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "_stage", stop)
    monkeypatch.setattr(cli, "_transcribe", stop)
    said = finetune(*command)
    assert (said.code, said.err) == (130, message)
