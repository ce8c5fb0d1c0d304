"""`finetune verify`: what an engine gets, how its failures are reported, and equal texts from real engines."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from command import Command
from conftest import embedded

from finetune.core.errors import ModelError
from finetune.data.manifest import write_manifest
from finetune.exporting.engines.environment import python_of
from finetune.exporting.engines.run_engine import RUNNERS, EngineAnswer, EngineClip, run_engine

WRITE = "import json,sys,time; request=json.load(open(sys.argv[1])); answer=open(sys.argv[2],'w'); "
ROWS = (
    "[answer.write(json.dumps({'id': c['id'], 'text': c['prompt'], 'seconds': 0.5})+'\\n') for c in request['clips']]; "
)
DONE = "answer.write(json.dumps({'versions': {'x': '1'}, 'complete': True})+'\\n')"


def run(script: str, folder: Path, timeout: float = 60) -> EngineAnswer:
    """A runner of one line, on two clips."""
    (folder / "run_fake.py").write_text(script)
    clips = [EngineClip(name, np.zeros(16, np.float32), f"USER: <|audio|>{name}", name) for name in ("a", "b")]
    return run_engine(Path(sys.executable), "fake", {"model": "m"}, clips, 20, folder, timeout, runners=folder)


def test_texts_by_id(tmp_path: Path) -> None:
    answer = run(WRITE + ROWS + DONE, tmp_path)
    assert answer.texts == {"a": "USER: <|audio|>a", "b": "USER: <|audio|>b"}
    assert answer.seconds == {"a": 0.5, "b": 0.5}
    assert answer.versions == {"x": "1"}
    request = json.loads((tmp_path / "request.json").read_text())
    assert request["max_new_tokens"] == 20 and request["model"] == "m"
    assert np.load(request["clips"][0]["samples"]).dtype == np.float32


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("import sys; sys.exit('no such model')", r"exit code 1 after 0 of 2 clips. Its last messages:\nno such model"),
        (WRITE + ROWS + "answer.flush(); import os; os._exit(9)", "exit code 9 after 2 of 2 clips"),
        (WRITE + ROWS, "exit code 0 after 2 of 2 clips"),
        (WRITE + ROWS + 'answer.write(\'{"id": "c", "te\')', "exit code 0 after 2 of 2 clips"),
    ],
    ids=["refuses", "crashes", "stops early", "stops in a line"],
)
def test_an_engine_that_fails_is_an_error_with_its_messages(script: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=message):
        run(script, tmp_path)


def test_an_engine_that_hangs_is_stopped(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"did not end in 2 s, after 2 of 2 clips; use --timeout"):
        run(WRITE + ROWS + "answer.flush(); time.sleep(60)", tmp_path, timeout=2)


def test_a_missing_environment_names_the_script(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="vllm is not installed .* run scripts/engines/setup vllm"):
        python_of("vllm", environments=tmp_path)
    with pytest.raises(ModelError, match="has no package mlx_audio; run scripts/engines/setup mlx"):
        python_of("mlx", Path(sys.executable))
    assert python_of("transformers", environments=tmp_path) == Path(sys.executable)


def test_runners_need_nothing_of_this_toolkit_in_another_environment() -> None:
    for path in RUNNERS.glob("*.py"):
        lines = [line for line in path.read_text().splitlines() if line.lstrip().startswith(("import", "from"))]
        own = [line for line in lines if "finetune" in line]
        assert all(line.startswith("        ") for line in own), path  # after an import that failed


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--engine", "transformers", "--limit", "0"], "'0' is not a whole number of 1 or more"),
        (["--engine", "transformers", "--gguf-dtype", "F16"], "transformers reads no GGUF files"),
    ],
)
def test_wrong_usage(arguments: list[str], message: str, finetune: Command) -> None:
    done = finetune("verify", "export", *arguments)
    assert done.code == 2 and message in done.err


def test_a_data_type_of_gguf_needs_its_format(finetune: Command, tmp_path: Path) -> None:
    recipe = Path(__file__).resolve().parents[2] / "recipes" / "quickstart.yaml"
    done = finetune("export", recipe, "--gguf-dtype", "F16", "--set", f"runs={tmp_path}")
    assert done.code == 2 and "add --format gguf" in done.err
    assert not list(tmp_path.iterdir())


@pytest.mark.engines
@pytest.mark.parametrize("engine", ["transformers", "llamacpp", "mlx", "vllm"])
def test_an_engine_writes_the_same_texts(engine: str, nano: Path, tmp_path: Path, finetune: Command) -> None:
    """On the embedded model, 12 clips; the environments are made by scripts/engines/setup."""
    write_manifest(tmp_path / "clips.jsonl", embedded("canary", 12))
    done = finetune(
        "verify", nano, "--engine", engine, "--clips", tmp_path / "clips.jsonl", "--json", tmp_path / "r.json"
    )
    result = json.loads((tmp_path / "r.json").read_text())
    assert (done.code, result["equal"], result["differences"]) == (0, 12, [])
    assert result["toolkit_wer"] == result["engine_wer"] < 0.3
