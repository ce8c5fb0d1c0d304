"""The notebook and the Python examples of the documentation run on the embedded model."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import nbformat
import numpy as np
import pytest
import soundfile
from conftest import VOCABULARY, embedded
from nbclient import NotebookClient
from serving_server import running

from finetune.data.manifest import write_manifest
from finetune.inference.saved_options import options_for
from finetune.model.granite import SpeechModel
from finetune.serving.models import Models, ServedModel

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCKS = {path: re.findall(r"^```python\n(.*?)^```", path.read_text(encoding="utf-8"), re.M | re.S) for path in PAGES}
CLIP = VOCABULARY / "audio" / "canary" / "canary-001-en-us-f3.opus"
RECIPE = """\
model: {base: data/granite-speech-nano}
data: {train: [train.jsonl], valid: [valid.jsonl], test: [test.jsonl], max_duration: 4}
train: {batch_seconds: 4}
decode: {max_new_tokens: 6}
evaluate: {probes: false}
export: {clips: 2}
machine: {processes: 1}
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with all files that the examples name."""
    folder = tmp_path_factory.mktemp("project")
    (folder / "data").symlink_to(ROOT / "data")
    (folder / "recipes").symlink_to(ROOT / "recipes")
    for name in ("call.wav", "a.wav", "b.mp3"):
        soundfile.write(folder / name, *soundfile.read(CLIP))
    for split, count in (("train", 4), ("valid", 2), ("test", 2)):
        write_manifest(folder / f"{split}.jsonl", embedded(split, count))
    (folder / "my.yaml").write_text(RECIPE)
    shutil.copytree(ROOT / "data" / "granite-speech-nano", folder / "runs" / "quickstart" / "export")
    return folder


SERVER = ROOT / "docs" / "serving.md"  # its example needs one


@pytest.mark.parametrize(
    "page", [pytest.param(path, id=path.stem) for path, blocks in BLOCKS.items() if blocks and path != SERVER]
)
def test_the_examples_of_a_page_run(page: Path, project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs the examples in order and in one namespace, like a reader."""
    monkeypatch.chdir(shutil.copytree(project, tmp_path / "project", symlinks=True))
    samples = np.asarray(soundfile.read(CLIP)[0][::2], np.float32)  # 8 kHz
    names = {"samples": samples, "print": lambda *_: None}
    for block in BLOCKS[page]:
        exec(compile(block, str(page), "exec"), names)


def test_the_example_of_a_client_runs(
    project: Path, model: Callable[[], SpeechModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(project)
    served = ServedModel("quickstart", model(), options_for(project / "runs" / "quickstart" / "export"))
    printed = list[str]()
    with running(Models([served])) as server:
        for block in BLOCKS[SERVER]:
            block = block.replace("http://127.0.0.1:8000", server.url)
            exec(compile(block, str(SERVER), "exec"), {"print": printed.append})
    assert len(printed) == 1 and printed[0].strip()


def test_the_pages_have_examples() -> None:
    assert sum(map(len, BLOCKS.values())) >= 4


@pytest.mark.slow
def test_the_notebook_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    notebook = nbformat.read(ROOT / "docs" / "quickstart.ipynb", as_version=4)
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(ROOT / "docs")}}).execute()
    outputs = [str(cell.outputs) for cell in notebook.cells if cell.cell_type == "code"]
    assert any("we went to the part after lunch" in text for text in outputs)
    assert any("step 1: loss" in text for text in outputs) and any("WER (%): base" in text for text in outputs)
