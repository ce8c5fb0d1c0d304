"""Bad manifests, tables, folders and hypothesis files."""

import json
import os
from collections.abc import Iterator
from pathlib import Path

from bad.case import ANY, Case
from bad.material import Material

HEADER = b"audio_filepath,text\n"


def row(**cells: object) -> bytes:
    """A line of JSON Lines with good audio."""
    return json.dumps({"audio_filepath": "../good/test0.wav", "text": "one two", **cells}).encode() + b"\n"


def files() -> Iterator[tuple[str, str, bytes, str]]:
    """Each bad file: name of the case, file name, content, what the message must contain."""
    for name, (content, says) in {**_json_lines(), **_json_cells()}.items():
        yield name, "bad.jsonl", content, says
    for name, (file, content, says) in _tables().items():
        yield name, file, content, says


def _json_lines() -> dict[str, tuple[bytes, str]]:
    """JSON Lines files whose lines or columns are wrong: content, what the message must contain."""
    return {
        "empty": (b"", "empty|no rows|no clips"),
        "blank-lines": (b"\n \n\n", "empty|no rows"),
        "nul": (b"\0" * 300, "binary|not JSON|NUL|null"),
        "half-line": (row()[:-20], "bad.jsonl:1"),
        "half-last-line": (row() + b'{"audio_filepath": "x', "bad.jsonl:2"),
        "not-an-object": (b"[1, 2]\n3\n", "object|JSON"),
        "number": (b"17\n", "not a JSON object"),
        "string": (b'"audio.wav"\n', "not a JSON object"),
        "list-of-lists": (b"[[1],[2]]", "object"),
        "latin1": ('{"audio_filepath": "é.wav", "text": "café"}\n'.encode("latin-1"), "UTF-8"),
        "utf32": (row().decode().encode("utf-32"), "UTF-8|binary|JSON"),
        "surrogate": (b'{"audio_filepath": "\\ud800.wav", "text": "a"}\n', "bad.jsonl"),
        "surrogate-text": (row(text="\ud800"), "Unicode|surrogate|bad.jsonl"),
        "deep": (b"[" * 100_000, "JSON|nest"),
        "deep-cell": (
            b'{"audio_filepath": "../good/test0.wav", "text": ' + b"[" * 50_000 + b"]" * 50_000 + b"}\n",
            ":1",
        ),
        "long-line": (b'{"audio_filepath": "' + b"a" * 10_000_000 + b'", "text": "a"}\n', "bad.jsonl|no such"),
        "long-text": (row(text="a" * 10_000_000), "characters|bad.jsonl"),
        "long-key": (b'{"' + b"k" * 1_000_000 + b'": 1}\n', "audio_filepath"),
        "many-keys": (json.dumps({f"k{n}": n for n in range(20_000)}).encode() + b"\n", "audio_filepath"),
        "no-audio-column": (b'{"text": "a"}\n', "audio_filepath"),
        "no-text-column": (b'{"audio_filepath": "../good/test0.wav"}\n', "text"),
    }


def _json_cells() -> dict[str, tuple[bytes, str]]:
    """JSON Lines files with a wrong value in a column: content, what the message must contain."""
    return {
        "audio-null": (row(audio_filepath=None), "audio"),
        "audio-number": (row(audio_filepath=5), "audio"),
        "audio-list": (row(audio_filepath=["a", "b"]), "audio"),
        "audio-object": (row(audio_filepath={"bytes": "AAAA"}), "audio"),
        "audio-empty": (row(audio_filepath=""), "audio"),
        "audio-nul": (row(audio_filepath="a\0b.wav"), "bad.jsonl|audio"),
        "audio-home": (row(audio_filepath="~nobody-here/x.wav"), "audio files exist|no such"),
        "audio-url": (row(audio_filepath="https://example.com/a.wav"), "bad.jsonl|audio"),
        "audio-long-name": (row(audio_filepath="a" * 5000 + ".wav"), "bad.jsonl|no such|name"),
        "audio-control": (row(audio_filepath="\x1b[31mred.wav"), "bad.jsonl|no such"),
        "audio-folder": (row(audio_filepath="../good"), "director|audio"),
        "audio-device": (row(audio_filepath="/dev/zero"), "audio|regular"),
        "audio-missing": (row(audio_filepath="nowhere.wav"), "nowhere"),
        "text-number": (row(text=5), ""),
        "text-list": (row(text=["a"]), ""),
        "text-object": (row(text={"a": 1}), ""),
        "text-control-token": (row(text="one <|audio|> two"), r"<\|audio\|>|"),
        "offset-text": (row(offset="soon"), "offset"),
        "offset-negative": (row(offset=-1), "offset"),
        "offset-beyond": (row(offset=1e9, duration=1), "offset|beyond|after|end"),
        "offset-nan": (row(offset=0, duration=1).replace(b'"offset": 0', b'"offset": NaN'), "offset|NaN"),
        "offset-huge": (row(offset=0, duration=1).replace(b'"offset": 0', b'"offset": 1e400'), "offset|inf"),
        "offset-digits": (row(offset=0, duration=1).replace(b'"offset": 0', b'"offset": ' + b"9" * 5000), "bad.jsonl"),
        "duration-negative": (row(offset=0, duration=-1), "duration"),
        "duration-zero": (row(offset=0, duration=0), "duration"),
        "duration-nan": (row(offset=0, duration=1).replace(b'"duration": 1', b'"duration": NaN'), "duration|NaN"),
        "duration-list": (row(offset=0, duration=[1]), "duration"),
        "duration-huge": (row(offset=0, duration=1e300), "duration|beyond|end|end"),
        "channel-text": (row(channel="middle"), "channel"),
        "channel-beyond": (row(channel=7), "channel"),
        "channel-negative": (row(channel=-1), "channel"),
        "keywords-object": (row(keywords={"a": 1}), ""),
        "id-object": (row(id={"a": 1}), ""),
        "id-twice": (row(id="a") + row(id="a"), ""),
        "version-future": (row(manifest_version=99, duration=1.0), ""),
    }


def _tables() -> dict[str, tuple[str, bytes, str]]:
    """Tables and other files: file name, content, what the message must contain."""
    return {
        "csv-empty": ("bad.csv", b"", "no rows|empty"),
        "csv-header-only": ("bad.csv", HEADER, "no rows|empty"),
        "csv-bom-only": ("bad.csv", b"\xef\xbb\xbf", "no rows|empty"),
        "csv-open-quote": ("bad.csv", HEADER + b'../good/test0.wav,"one two\n', "quote|:2"),
        "csv-more-cells": ("bad.csv", HEADER + b"../good/test0.wav,one,two,three\n", ":2"),
        "csv-columns-twice": ("bad.csv", b"text,text\na,b\n", "more than once|header"),
        "csv-no-header": ("bad.csv", b"../good/test0.wav,one two\n", "header|no rows|column"),
        "csv-nul": ("bad.csv", HEADER + b"a\0b,c\n", "binary"),
        "csv-huge-cell": ("bad.csv", HEADER + b"../good/test0.wav," + b"a" * 200_000 + b"\n", "bad.csv"),
        "csv-carriage-returns": ("bad.csv", b"audio_filepath,text\ra.wav,b\r", "bad.csv"),
        "csv-latin1": ("bad.csv", HEADER + b"../good/test0.wav,caf\xe9\n", ":2.*UTF-8"),
        "csv-utf16-half": ("bad.csv", b"\xff\xfea\0u\0d", "UTF-16|UTF-8|text"),
        "tsv-wrong-delimiter": ("bad.tsv", HEADER + b"../good/test0.wav,one two\n", "column"),
        "tsv-binary": ("bad.tsv", bytes(range(256)) * 20, "UTF-8|binary"),
        "json-object": ("bad.json", b'{"data": []}', "audio_filepath|list|object"),
        "json-empty-list": ("bad.json", b"[]", "no rows"),
        "json-nan": ("bad.json", b"NaN", "object"),
        "parquet-empty": ("bad.parquet", b"", "parquet|read"),
        "parquet-text": ("bad.parquet", b"PAR1 this is not one PAR1", "parquet|read"),
        "parquet-garbage": ("bad.parquet", b"PAR1" + bytes(range(256)) * 30 + b"\xff\xff\xff\x7fPAR1", "parquet|read"),
        "archive": ("bad.tar.gz", b"\x1f\x8b\x08\0", "format|unpack"),
        "no-suffix": ("bad", row(), "format"),
    }


def cases(material: Material) -> Iterator[Case]:
    for number, (name, file, content, says) in enumerate(files()):
        folder = material.folder(f"manifest-{name}")
        path = folder / file
        path.write_bytes(content)
        yield from over_commands(material, folder, path, says, calibrate=number % 5 == 0)
    yield from _paths(material)
    yield from _parquet(material)
    yield from _hypotheses(material)


def over_commands(material: Material, folder: Path, path: Path, says: str, calibrate: bool = False) -> Iterator[Case]:
    """A bad corpus as the test set of a recipe, and as the clips of the commands that take a manifest."""
    name = folder.name
    lenient = name.rpartition("manifest-")[2] in ACCEPTED
    codes = (0, 1) if lenient else (1,)
    says = "" if lenient else says
    yield Case(f"{name}: prepare", folder, material.on_test("prepare", path), codes, says)
    yield Case(f"{name}: check", folder, material.on_test("check", path), (0, 1))
    yield Case(f"{name}: score", folder, material.on_test("score", path), codes, says)
    good = [str(material.good / f"hyp_{letter}.jsonl") for letter in "ab"]
    yield Case(f"{name}: compare", folder, ["compare", *good, "--manifest", str(path)], codes)
    if calibrate:
        argv = ["calibrate", "--model", str(material.model), "--manifest", str(path), "--max-wer-loss", "1"]
        yield Case(f"{name}: calibrate", folder, argv, (1,) if not lenient else ANY)


# Inputs that a command may also read: a number is a text, a token in a text is a warning for scoring, and so on.
ACCEPTED = {
    "text-number",
    "text-list",
    "text-object",
    "text-control-token",
    "id-object",
    "keywords-object",
    "version-future",
    "duration-negative",
    "duration-zero",
    "duration-nan",
    "duration-list",
    "csv-carriage-returns",
    "surrogate-text",
    "long-text",
    "channel-beyond",
    "csv-huge-cell",
    "id-twice",
    "channel-text",
    "channel-negative",
    "offset-beyond",
    "offset-nan",
    "csv-no-header",
}


def _paths(material: Material) -> Iterator[Case]:
    """Files that are no files."""
    folder = material.folder("manifest-paths")
    (folder / "folder.jsonl").mkdir()
    (folder / "empty_folder").mkdir()
    os.mkfifo(folder / "pipe.jsonl")
    os.mkfifo(folder / "pipe.wav")
    (folder / "zero.jsonl").symlink_to("/dev/zero")
    (folder / "null.jsonl").symlink_to("/dev/null")
    (folder / "loop.jsonl").symlink_to("loop.jsonl")
    (folder / "dangling.jsonl").symlink_to("nowhere")
    (folder / "pipe_row.jsonl").write_bytes(row(audio_filepath="pipe.wav"))
    (folder / "texts_only").mkdir()
    (folder / "texts_only" / "a.txt").write_text("one two")
    (folder / "audio_only").mkdir()
    (folder / "audio_only" / "a.wav").symlink_to(material.good / "test0.wav")
    (folder / "loop_folder").mkdir()
    (folder / "loop_folder" / "again").symlink_to(folder / "loop_folder")
    names = {
        "folder.jsonl": "folder|director|audio",
        "empty_folder": "no audio",
        "pipe.jsonl": "regular|pipe",
        "zero.jsonl": "regular|device",
        "null.jsonl": "regular|device|empty|no rows|no such",
        "loop.jsonl": "no such|loop|symbolic",
        "dangling.jsonl": "no such",
        "pipe_row.jsonl": "regular|pipe",
        "texts_only": "no audio",
        "audio_only": "transcript",
        "loop_folder": "no audio",
        "a" * 300 + ".jsonl": "too long|no such|valid",
        "~nobody-here/a.jsonl": "no such|home|user",
        "nul\0.jsonl": "null|valid|no such",
        "hf:": "hf:",
        "hf:::": "hf:",
        "hf:../../etc:test": "hf:|offline|hub|dataset",
        "../good/test": "no such",
        "/": "audio|format|no such|read",
    }
    for number, (name, says) in enumerate(names.items()):
        inner = folder / f"case{number}"
        inner.mkdir()
        path = name if name.startswith(("hf:", "~", "/", "nul\0")) else folder / name
        if name == "/":
            continue
        for case in over_commands(material, inner, Path(path) if isinstance(path, Path) else path, says):
            if case.argv[0] != "check":
                yield case
    locked = material.folder("manifest-unreadable")
    (locked / "locked.jsonl").write_bytes(row())
    (locked / "locked.jsonl").chmod(0)
    argv = material.on_test("score", locked / "locked.jsonl")
    yield Case("manifest-unreadable: score", locked, argv, (1,), "permission", unprivileged=True)


def _parquet(material: Material) -> Iterator[Case]:
    """Parquet tables with audio of wrong types."""
    import pyarrow
    import pyarrow.parquet

    tables: dict[str, dict[str, list[object]]] = {
        "numbers": {"audio": [1, 2], "text": ["a", "b"]},
        "bytes": {"audio": [b"\0\1\2" * 100_000, b"x"], "text": ["a", "b"]},
        "null": {"audio": [None, None], "text": ["a", "b"]},
        "floats": {"audio": [[0.0] * 20_000, [float("nan")]], "text": ["a", "b"]},
        "struct": {"audio": [{"bytes": b"garbage" * 1000, "path": "x.wav"}], "text": ["a"]},
        "struct-null": {"audio": [{"bytes": None, "path": None}], "text": ["a"]},
        "struct-path": {"audio": [{"bytes": b"", "path": "../../etc/passwd"}], "text": ["a"]},
        "no-text": {"audio": ["a.wav"], "words": ["a"]},
        "no-rows": {"audio": [], "text": []},
    }
    for name, columns in tables.items():
        folder = material.folder(f"parquet-{name}")
        pyarrow.parquet.write_table(pyarrow.table(columns), folder / "bad.parquet")
        yield from over_commands(material, folder, folder / "bad.parquet", "")


def _hypotheses(material: Material) -> Iterator[Case]:
    """Bad files of hypotheses."""
    contents = {
        "empty.jsonl": (b"", "no hypotheses|empty"),
        "no-text.jsonl": (b'{"id": "test0"}\n', "pred_text"),
        "null-text.jsonl": (b'{"id": "test0", "pred_text": null}\n', "pred_text"),
        "no-id.jsonl": (b'{"pred_text": "a"}\n', "id"),
        "few-rows.jsonl": (b'{"id": "test0", "pred_text": "a"}\n', "no hypothesis"),
        "twice.jsonl": (b'{"id": "test0", "pred_text": "a"}\n' * 2, "no hypothesis"),
        "binary.jsonl": (bytes(range(256)), "UTF-8|binary"),
        "binary.trn": (bytes(range(256)), "UTF-8|binary"),
        "plain.trn": (b"words without an id\n", "TRN"),
        "plain.txt": (b"words\n", "format"),
        "long.trn": (b"(" * 200_000 + b"\n", "TRN"),
        "deep.jsonl": (b"[" * 90_000, "JSON"),
        "object-id.jsonl": (b'{"id": {"a": [1]}, "pred_text": "a"}\n', "no hypothesis"),
    }
    folder = material.folder("hypotheses")
    for name, (content, says) in contents.items():
        (folder / name).write_bytes(content)
        argv = ["compare", str(folder / name), str(material.good / "hyp_a.jsonl"), "--manifest", material.test]
        yield Case(f"hypotheses-{name}", folder, argv, (1,), says)
