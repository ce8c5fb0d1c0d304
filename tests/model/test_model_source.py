"""A wrong model name and a damaged folder are errors with a plain message, before torch is imported."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import pytest
import soundfile

NANO = Path(__file__).resolve().parents[2] / "data" / "granite-speech-nano"

OFFLINE = {"HF_HUB_OFFLINE": "1"}
# The import of torch and transformers fails.
COMMAND = """
import sys
sys.modules["torch"] = sys.modules["transformers"] = None
from finetune.cli.main import main
sys.exit(main(sys.argv[1:]))
"""


def error_of(*arguments: object, environment: Mapping[str, str] = OFFLINE) -> str:
    """The error of a command that may not import torch."""
    call = [sys.executable, "-c", COMMAND, *map(str, arguments)]
    done = subprocess.run(call, capture_output=True, text=True, env={**os.environ, **environment})
    assert done.returncode == 1, done.stderr
    return done.stderr


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    path = tmp_path / "clip.wav"
    soundfile.write(path, [0.0] * 16_000, 16_000)
    return path


def test_a_name_that_is_nowhere_is_a_short_error(clip: Path) -> None:
    error = error_of("transcribe", "--model", "nosuch/dir", clip)
    assert error.startswith(
        "finetune: nosuch/dir: no such folder, and no such model in the local cache (the hub is off: HF_HUB_OFFLINE); "
        "check the path or the name\nmodels of the family: ibm-granite/"
    )
    assert len(error.splitlines()) == 2 and "http" not in error


@pytest.mark.parametrize("damage", ["truncated", "whisper"])
def test_a_damaged_folder_is_an_error_before_torch_is_imported(tmp_path: Path, clip: Path, damage: str) -> None:
    folder = Path(shutil.copytree(NANO, tmp_path / "model"))
    if damage == "truncated":
        os.truncate(folder / "model.safetensors", 100_000)
    else:
        (folder / "config.json").write_text(json.dumps({"model_type": "whisper"}))
    (tmp_path / "r.yaml").write_text(f"model: {{base: {folder}}}\ndata: {{train: [a], valid: [b], test: [c]}}\n")
    manifest = tmp_path / "m.jsonl"
    for arguments in (
        ("transcribe", "--model", folder, clip),
        ("calibrate", "--model", folder, "--manifest", manifest, "--max-wer-loss", "0"),
        ("segment", folder, clip, "--text", manifest, "-o", tmp_path / "out"),
        ("score", tmp_path / "r.yaml"),
        ("run", tmp_path / "r.yaml"),
    ):
        assert damage in error_of(*arguments)


class NoRepository(BaseHTTPRequestHandler):
    """A hub without repositories."""

    def do_HEAD(self) -> None:
        self.send_response(404)
        self.send_header("X-Error-Code", "RepoNotFound")
        self.end_headers()

    do_GET = do_HEAD

    def log_message(self, format: str, *args: object) -> None: ...


def test_what_the_hub_says_is_said_plainly(clip: Path, tmp_path: Path) -> None:
    with HTTPServer(("127.0.0.1", 0), NoRepository) as server:
        Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        hub = {"HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}", "HF_HUB_OFFLINE": "0", "HF_HOME": str(tmp_path)}
        for name in ("nosuch/dir", "no such name"):
            error = error_of("transcribe", "--model", name, clip, environment=hub)
            assert error.startswith(f"finetune: {name}: no such folder, and no such model on the hub; check the path")
        server.shutdown()
    error = error_of("transcribe", "--model", "nosuch/dir", clip, environment=hub)
    assert "no such model in the local cache (the hub does not answer)" in error


def test_model_in_the_cache_is_used_at_once_if_the_hub_is_away(tmp_path: Path) -> None:
    commit = "0" * 40
    cached = tmp_path / "hub" / "models--acme--nano"
    (cached / "refs").mkdir(parents=True)
    (cached / "refs" / "main").write_text(commit)
    (cached / "snapshots").mkdir()
    (cached / "snapshots" / commit).symlink_to(NANO)
    away = {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HUB_OFFLINE": "0", "HF_HOME": str(tmp_path)}
    check = "from finetune.model.model_source import check_source; check_source('acme/nano')"
    call = [sys.executable, "-c", f"import os; {check}; print(os.environ['HF_HUB_OFFLINE'])"]
    wait = 20  # seconds; with all its attempts, the hub's client needs 24
    done = subprocess.run(call, capture_output=True, text=True, env={**os.environ, **away}, timeout=wait)
    assert done.stdout == "1\n", done.stderr
    assert "the local cache is used" in done.stderr
