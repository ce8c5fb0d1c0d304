"""scripts/fetch_prompts, in a copy of its folder, with made packages: rows of both tasks, no sentence in two splits."""

import gzip
import re
import shutil
import subprocess
import sys
import tarfile
from io import BytesIO
from pathlib import Path

import pytest
import soundfile

from finetune.core.files import read_jsonl

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"
NUMBERS = dict(
    uno="one", dos="two", tres="three", cuatro="four", cinco="five", seis="six", siete="seven", ocho="eight",
    nueve="nine", diez="ten", once="eleven", doce="twelve", trece="thirteen", catorce="fourteen", quince="fifteen",
)  # fmt: skip
SPANISH = {
    **{f"say-{n}": f"La palabra es {word} y no otra." for n, word in enumerate(NUMBERS)},
    "agent-user": "Agente. Por favor ingrese su numero de agente.",
    "agent/again": "Otra vez. Por favor ingrese su numero de agente!",  # the same sentence: the same split
    "hello": "Hola",
    "beep": "[tono]",
    "letters/a": "a de avion y nada",
    "no-english": "Esto no existe en ingles.",
    "too-long": "palabra " * 40,  # for two seconds
}
TEXTS = {
    "es": SPANISH,
    "en": {
        **{name: f"English of {name} (note)" if name == "beep" else f"English of {name} here" for name in SPANISH},
        **{f"say-{n}": f"The word is {word} and no other." for n, word in enumerate(NUMBERS.values())},
    },
}
del TEXTS["en"]["no-english"]


def deb(path: Path, files: dict[str, bytes]) -> str:
    """Writes a .deb: an ar archive with a data.tar.xz."""
    data = BytesIO()
    with tarfile.open(fileobj=data, mode="w:xz") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(f"./{name}")
            member.size = len(content)
            tar.addfile(member, BytesIO(content))
    archive = b"!<arch>\n"
    for part, content in ((b"debian-binary", b"2.0\n"), (b"data.tar.xz", data.getvalue())):
        archive += part.ljust(48) + str(len(content)).encode().ljust(10) + b"`\n" + content + b"\n" * (len(content) % 2)
    path.write_bytes(archive)
    return str(path)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    (tmp_path / "scripts").mkdir()
    for name in ("fetch_prompts", "debian_package.py"):
        shutil.copy(SCRIPTS / name, tmp_path / "scripts")
    return tmp_path


@pytest.fixture
def debs(tmp_path: Path) -> list[str]:
    sounds = {f"usr/share/asterisk/sounds/es_MX_f_Allison/{name}.g722": bytes(16_000) for name in SPANISH}
    texts = {
        language: gzip.compress("".join(["; comment\n\n", *(f"{k}: {v}\n" for k, v in rows.items())]).encode())
        for language, rows in TEXTS.items()
    }
    named = {code: {f"usr/share/doc/p/core-sounds-{code}.txt.gz": content} for code, content in texts.items()}
    files = {"sounds": sounds, **named}
    return [deb(tmp_path / f"{name}.deb", content) for name, content in files.items()]


def fetch(tree: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs the script in another working directory and without apt-get."""
    command = [sys.executable, str(tree / "scripts" / "fetch_prompts"), *arguments]
    return subprocess.run(command, cwd="/", env={"PATH": ""}, capture_output=True, text=True, check=False)


def test_both_tasks_have_the_same_clips_in_the_same_splits(tree: Path, debs: list[str]) -> None:
    done = fetch(tree, "es", *debs)
    assert done.returncode == 0, done.stderr
    folder, splits = tree / "data" / "prompts-es", {}
    for split in ("train", "valid", "test"):
        rows = read_jsonl(folder / f"{split}.jsonl")
        translations = read_jsonl(folder / f"{split}.to-en.jsonl")
        assert [f"{row['id']}.to-en" for row in rows] == [row["id"] for row in translations]
        for row, translation in zip(rows, translations, strict=True):
            assert row["text"] == SPANISH[row["id"].replace("agent_", "agent/")].strip()
            assert translation["text"] == TEXTS["en"][row["id"].replace("agent_", "agent/")]
            assert (translation["task"], translation["language"], translation["target_language"]) == (
                "translate",
                "es",
                "en",
            )
            assert "task" not in row and row["speaker"] == "es_MX_f_Allison" and row["language"] == "es"
            info = soundfile.info(folder / row["audio_filepath"])
            assert (info.samplerate, info.channels, info.duration) == (16_000, 1, row["duration"])
        splits |= {row["id"]: split for row in rows}
    assert set(splits) == {*(f"say-{n}" for n in range(15)), "agent-user", "agent_again", "hello"}
    assert splits["agent-user"] == splits["agent_again"] and splits["hello"] == "train"
    assert {*splits.values()} == {"train", "valid", "test"}

    written = {path.name: path.read_bytes() for path in folder.glob("*.jsonl")}
    again = fetch(tree, "es")  # without packages and without apt-get
    assert again.returncode == 0 and "already" in again.stdout
    assert {path.name: path.read_bytes() for path in folder.glob("*.jsonl")} == written
    (folder / "audio" / "hello.wav").unlink()
    assert fetch(tree, "es").returncode == 1


def test_messages_say_what_to_do(tree: Path, debs: list[str]) -> None:
    (tree / "page.deb").write_text("<html>")
    (tree / "cut.deb").write_bytes(Path(debs[0]).read_bytes()[:500])
    for arguments in ([], [str(tree / "none.deb")], [str(tree / "page.deb")], [str(tree / "cut.deb")], debs[:2]):
        done = fetch(tree, "es", *arguments)
        assert done.returncode == 1
        assert "packages.debian.org" in done.stderr and "scripts/fetch_prompts es PATH.deb" in done.stderr
        assert "Traceback" not in done.stderr
    assert "no texts of en" in done.stderr
    assert fetch(tree, "xx").returncode == 2
    assert re.search(r"invalid choice: '?xx", fetch(tree, "xx").stderr)
