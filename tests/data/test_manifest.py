"""The manifest: a round trip keeps every value, and a damaged file is an error."""

import json
import logging
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from utterance_strategies import UTTERANCES

from finetune.core.errors import DataError
from finetune.core.files import sha256_file
from finetune.data.manifest import Utterance, read_manifest, unique_id, write_manifest


def line(**changes: object) -> str:
    return json.dumps({"audio_filepath": "/a/b.wav", "duration": 1.5, "text": "hello"} | changes)


@given(UTTERANCES)
def test_write_and_read_round_trip(tmp_path_factory: pytest.TempPathFactory, utterances: list[Utterance]) -> None:
    path = tmp_path_factory.getbasetemp() / "round.jsonl"
    write_manifest(path, utterances)
    assert read_manifest(path) == utterances
    before = sha256_file(path)
    write_manifest(path, read_manifest(path))
    assert sha256_file(path) == before


def test_empty_values_are_not_written(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "train.jsonl"
    write_manifest(path, [Utterance("a", "/x/a.wav", 2.0, "grüß dich", extra={"dialect": "Wien"})])
    assert json.loads(path.read_text()) == {
        "id": "a",
        "audio_filepath": "/x/a.wav",
        "offset": 0.0,
        "duration": 2.0,
        "text": "grüß dich",
        "manifest_version": 2,
        "dialect": "Wien",
    }
    assert "grüß" in path.read_text("utf-8")  # readable, not escaped


def test_rows_without_an_offset_begin_at_0_with_a_note(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """As in version 1 of the manifest and in manifests of NeMo."""
    caplog.set_level(logging.INFO)
    path = tmp_path / "m.jsonl"
    path.write_text("\n".join([line(), line(offset=2.0), line(offset=4.0, channel="right")]))
    assert [(item.offset, item.channel) for item in read_manifest(path)] == [(0.0, None), (2.0, None), (4.0, 1)]
    assert "m.jsonl: a manifest of version 1 or of NeMo; rows without an offset begin at 0" in caplog.text


def test_byte_order_mark_and_windows_line_ends_are_accepted(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + line(text="one").encode() + b"\r\n\r\n" + line(text="two").encode())
    assert [item.text for item in read_manifest(path)] == ["one", "two"]


def test_ids_are_made_from_stems_offsets_and_numbers(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    path.write_text("\n".join([line(), line(offset=1.25), line(audio_filepath="/c/b.wav"), line(id="b-2")]))
    assert [item.id for item in read_manifest(path)] == ["b", "b@1.250", "b-3", "b-2"]
    assert unique_id("/a/b.wav", 0.0, ()) == "b"


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ("{", "m.jsonl:2: not JSON"),
        ("[1]", "m.jsonl:2: not a JSON object"),
        (line(text=None), "m.jsonl:2: `text`"),
        (line(audio_filepath=3), "m.jsonl:2: `audio_filepath`"),
        (line(duration=0), "m.jsonl:2: `duration`"),
        (line(duration="1.5"), "m.jsonl:2: `duration`"),
        (line(duration=float("nan")), "m.jsonl:2: `duration`"),
        (line(duration=True), "m.jsonl:2: `duration`"),
        (line(offset=-1), "m.jsonl:2: `offset`"),
        (line(id=7), "m.jsonl:2: `id`"),
        (line(channel=[0, 1]), "m.jsonl:2: `channel`"),
        (line(manifest_version=3), "m.jsonl:2: manifest_version is 3; this version of finetune reads 1 to 2"),
        (line(manifest_version="x"), "m.jsonl:2: manifest_version is 'x'"),
        (line(keywords="a,b"), "m.jsonl:2: `keywords`"),
        (line(id="first"), "m.jsonl:2: id 'first' is already used at .*m.jsonl:1"),
    ],
)
def test_the_error_has_the_bad_line(tmp_path: Path, bad: str, message: str) -> None:
    path = tmp_path / "m.jsonl"
    path.write_text(line(id="first") + "\n" + bad + "\n")
    with pytest.raises(DataError, match=message):
        read_manifest(path)


@pytest.mark.parametrize(("content", "message"), [(b"", "empty"), (b"\n\n", "empty"), (b"\xff\x00\x80", "not UTF-8")])
def test_an_empty_or_binary_file_is_an_error(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "m.jsonl"
    path.write_bytes(content)
    with pytest.raises(DataError, match=message):
        read_manifest(path)


def test_a_missing_file_or_a_folder_is_an_error(tmp_path: Path) -> None:
    for path in (tmp_path / "none.jsonl", tmp_path):
        with pytest.raises(DataError, match="cannot be read"):
            read_manifest(path)


@pytest.mark.parametrize("extra", [{"score": float("nan")}, {"when": object()}, {"text": "other"}])
def test_a_failed_write_keeps_the_old_manifest(tmp_path: Path, extra: dict[str, object]) -> None:
    path, good = tmp_path / "m.jsonl", Utterance("a", "/a.wav", 1.0, "a")
    write_manifest(path, [good])
    with pytest.raises(DataError, match="'b'"):
        write_manifest(path, [good, Utterance("b", "/b.wav", 1.0, "b", extra=extra)])
    assert read_manifest(path) == [good]
    assert [item.name for item in tmp_path.iterdir()] == ["m.jsonl"]


def test_the_manifest_module_imports_no_heavy_package() -> None:
    check = "import sys, finetune.data.manifest; print({'torch', 'numpy', 'soundfile', 'datasets'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", check], capture_output=True, text=True).stdout.strip() == "set()"
