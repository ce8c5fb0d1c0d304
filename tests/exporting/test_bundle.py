"""An export transcribes without this package, in an environment that has only the packages it names."""

import ast
import json
import os
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
import soundfile
from command import with_thresholds
from conftest import VOCABULARY
from packaging.requirements import Requirement

import finetune
from finetune.cli.transcribe import standalone
from finetune.core.config import Recipe
from finetune.data.audio import load_audio
from finetune.exporting.bundle import add_transcriber, modules

CLIPS = [VOCABULARY / "audio" / "canary" / name for name in ("canary-001-en-us-f3.opus", "canary-006-flite-slt.opus")]
NEEDED = ("torch", "transformers", "soundfile", "soxr")
# numpy comes with those; the others are imported only for an option or the format of a file.
# safetensors and huggingface_hub are requirements of transformers.
FOREIGN = {
    *NEEDED,
    "numpy",
    "safetensors",
    "huggingface_hub",
    "silero_vad",
    "bitsandbytes",
    "av",
    "rich",
    "fsspec",
    "requests",
}


def imported(path: Path) -> set[str]:
    """Modules that a file imports at any place in it."""
    names = set[str]()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {str(node.module), *(f"{node.module}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "require":
            names |= {argument.value for argument in node.args if isinstance(argument, ast.Constant)}
    return names


@pytest.fixture(scope="module")
def folder(nano: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The embedded model with a transcriber, as `export` writes it (tested in test_export)."""
    made = tmp_path_factory.mktemp("away") / "my export"
    made.mkdir()
    for path in nano.iterdir():
        (made / path.name).symlink_to(path)
    sides = {side: ["x"] for side in ("train", "valid", "test")}
    recipe = {"name": "x", "model": {"base": str(nano)}, "data": sides, "decode": {"batch_seconds": 99}}
    add_transcriber(made, Recipe.model_validate(recipe))
    return made


def test_copied_modules_import_only_copied_modules_and_the_named_packages(folder: Path) -> None:
    copied = {
        ".".join(path.relative_to(folder / "transcribe").with_suffix("").parts).removesuffix(".__init__"): path
        for path in (folder / "transcribe").rglob("*.py")
    }
    assert len(copied) > 15 and {"__main__", "finetune", "finetune.inference.transcribe"} <= copied.keys()
    foreign = set[str]()
    for name, path in copied.items():
        for module in imported(path):
            top = module.split(".")[0]
            if top == "finetune":
                assert module in copied or module.rpartition(".")[0] in copied, f"{name} imports {module}"
            elif top not in sys.stdlib_module_names:
                foreign.add(top)
    assert foreign == FOREIGN


def test_the_copied_modules_are_unchanged(folder: Path) -> None:
    for name, path in modules().items():
        if name == "finetune":
            continue
        copy = folder / "transcribe" / path.relative_to(Path(finetune.__file__).parent.parent)
        assert copy.read_bytes() == path.read_bytes(), name


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `pip install torch transformers soundfile soxr` would give: links to those packages and all they need."""
    made = tmp_path_factory.mktemp("site")
    todo, seen = list(NEEDED), set[str]()
    while todo:
        name = todo.pop().lower().replace("_", "-")
        try:
            distribution = metadata.distribution(name)
        except metadata.PackageNotFoundError:
            continue
        if name in seen:
            continue
        seen.add(name)
        for top in {path.parts[0] for path in distribution.files or () if path.parts[0] not in ("..", "__pycache__")}:
            source = Path(str(distribution.locate_file(top)))
            if source.exists() and not (made / top).exists():
                (made / top).symlink_to(source)
        for line in distribution.requires or ():
            requirement = Requirement(line)
            if not requirement.marker or requirement.marker.evaluate({"extra": ""}):
                todo.append(requirement.name)
    assert not seen & {"peft", "accelerate", "datasets", "jiwer", "wandb", "silero-vad", "finetune-granite-speech"}
    return made


def test_the_transcriber_runs_with_only_the_named_packages(folder: Path, site: Path, tmp_path: Path) -> None:
    """-I and -S: no PYTHONPATH, no site-packages, no current folder; then the site above alone."""
    soundfile.write(tmp_path / "long.wav", load_audio(CLIPS[0]), 16_000)
    (tmp_path / "bad.wav").write_text("no audio")
    start = (
        "import runpy, sys; sys.path.append(sys.argv.pop(1)); sys.argv.pop(0); "
        "runpy.run_path(sys.argv[0], run_name='__main__')"
    )
    command = [
        sys.executable,
        "-I",
        "-S",
        "-c",
        start,
        str(site),
        str(folder / "transcribe"),
        *map(str, CLIPS),
        "bad.wav",
        "--format",
        "json",
    ]
    clean = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    done = subprocess.run(command, cwd=tmp_path, env={**clean, "HF_HUB_OFFLINE": "1"}, capture_output=True, text=True)
    assert done.returncode == 1, done.stderr
    assert "finetune: bad.wav: not audio in a supported format" in done.stderr
    assert "Loading weights" not in done.stderr
    here = finetune.transcribe(CLIPS, folder)
    assert [json.loads(line)["text"] for line in done.stdout.splitlines()] == [item.text for item in here]
    assert [len(json.loads(line)["segments"][0]["words"]) for line in done.stdout.splitlines()] == [7, 7]


def test_python_runs_the_folder(folder: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-I", "my export/transcribe", "--help"], cwd=folder.parent, capture_output=True, text=True
    )
    assert done.returncode == 0 and "example: python my export/transcribe call.wav" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["gone.wav"], 1, "finetune: gone.wav: no such file"),
        ([], 2, "finetune: no audio files"),
        (["a.wav", "--language", "jp"], 2, "finetune: language 'jp' is not one of"),
        ([str(CLIPS[0]), "--keywords", "<|audio|>"], 1, "a keyword contains the special token <|audio|>"),
    ],
)
def test_exit_codes_are_those_of_finetune_transcribe(
    folder: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], code: int, message: str
) -> None:
    assert standalone(folder, arguments) == code
    assert message in capsys.readouterr().err


def test_calibrated_thresholds_are_used(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An entropy that every clip passes: the CTC text is kept, and no draft is shown to the language model."""
    calibrated = with_thresholds(folder, tmp_path / "calibrated", 100.0, 0.5)
    texts = ("the children are playing in the garden\n", "the children or plaing in the garden\n")
    for model, drafted, text in zip((folder, calibrated), (True, False), texts, strict=True):
        assert standalone(model, [str(CLIPS[1]), "--decoder", "relaxed"]) == 0
        output = capsys.readouterr()
        assert output.out == text
        assert ("of the draft accepted" in output.err) == drafted


def test_missing_settings_are_reported(nano: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert standalone(nano, ["a.wav"]) == 1
    assert "settings.json: no such file; run `finetune export` again" in capsys.readouterr().err
