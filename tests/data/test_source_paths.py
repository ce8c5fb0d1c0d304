"""Globs and brace patterns in the name of a corpus."""

import json
from pathlib import Path

import fsspec
import numpy as np
import pytest
import soundfile

from finetune.core.errors import DataError
from finetune.data.corpora import preview_rows, read_corpus
from finetune.data.source_paths import expand, is_pattern


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("")


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("s-{000..002}.tar", ["s-000.tar", "s-001.tar", "s-002.tar"]),
        ("s-{2..0}.tar", ["s-2.tar", "s-1.tar", "s-0.tar"]),
        ("s-{8..10}.tar", ["s-8.tar", "s-9.tar", "s-10.tar"]),
        ("s-{08..10}.tar", ["s-08.tar", "s-09.tar", "s-10.tar"]),
        ("{b,a}/{0..1}.tar", ["b/0.tar", "b/1.tar", "a/0.tar", "a/1.tar"]),
        ("{x,y{1..2}}.csv", ["x.csv", "y1.csv", "y2.csv"]),
        ("audio__OP_0..1_CL_.tar", ["audio_0.tar", "audio_1.tar"]),
        ("manifest__OP_0,3_CL_.json", ["manifest_0.json", "manifest_3.json"]),
    ],
)
def test_braces_name_files_in_their_order(tmp_path: Path, pattern: str, names: list[str]) -> None:
    touch(tmp_path, *names)
    assert is_pattern(f"{tmp_path}/{pattern}")
    assert expand(f"{tmp_path}/{pattern}") == [f"{tmp_path}/{name}" for name in names]


def test_globs_are_sorted_and_name_each_file_once(tmp_path: Path) -> None:
    touch(tmp_path, "b/2.csv", "a/1.csv", "a/c/3.csv", "a/x.txt")
    assert expand(f"{tmp_path}/*/*.csv") == [f"{tmp_path}/a/1.csv", f"{tmp_path}/b/2.csv"]
    assert expand(f"{tmp_path}/**/[13].csv") == [f"{tmp_path}/a/1.csv", f"{tmp_path}/a/c/3.csv"]
    assert expand(f"{tmp_path}/{{b,*}}/?.csv") == [f"{tmp_path}/b/2.csv", f"{tmp_path}/a/1.csv"]


def test_an_existing_name_and_a_plain_name_are_not_patterns(tmp_path: Path) -> None:
    touch(tmp_path, "take [1]/{a,b}.csv")
    assert not is_pattern(f"{tmp_path}/take [1]/{{a,b}}.csv")
    assert not any(map(is_pattern, ("a.csv", "a{1}.csv", "https://host/a.tar?version=3", "s3://bucket/a.tar", "[]")))


def test_missing_files_and_empty_globs_are_named(tmp_path: Path) -> None:
    touch(tmp_path, "s-0.tar", "s-2.tar")
    with pytest.raises(DataError, match=r"1 of 3 names .* such as .*/s-1\.tar; correct the pattern"):
        expand(f"{tmp_path}/s-{{0..2}}.tar")
    with pytest.raises(DataError, match=r"1 of 1 names .* such as .*/\*\.csv"):
        expand(f"{tmp_path}/*.csv")
    with pytest.raises(DataError, match=r"more than 100,000 names"):
        expand(f"{tmp_path}/s-{{0..999999999999}}.tar")


def test_patterns_of_urls(tmp_path: Path) -> None:
    memory = fsspec.filesystem("memory")
    for name in ("1", "0"):
        memory.pipe(f"/{tmp_path.name}/s-{name}.tar", b"x")
    urls = [f"memory://{tmp_path.name}/s-{number}.tar" for number in (0, 1)]
    assert expand(f"memory://{tmp_path.name}/s-{{0..1}}.tar") == urls
    assert [url.replace(":///", "://") for url in expand(f"memory://{tmp_path.name}/s-*.tar")] == urls
    with pytest.raises(DataError, match="match no file"):
        expand(f"memory://{tmp_path.name}/t-*.tar")


def test_each_file_of_a_pattern_is_a_corpus_with_its_own_folder(tmp_path: Path) -> None:
    for number, column in enumerate(("text", "sentence")):
        folder = tmp_path / f"part-{number}"
        folder.mkdir()
        soundfile.write(folder / "a.wav", np.full(8000, 0.1, np.float32), 16_000)
        lines = [json.dumps({"audio_filepath": "a.wav", column: f"{number} {row}"}) for row in range(600)]
        (folder / "m.jsonl").write_text("\n".join(lines))
    for rows in (
        read_corpus(f"{tmp_path}/part-*/m.jsonl", tmp_path),
        preview_rows(f"{tmp_path}/part-{{0..1}}/m.jsonl"),
    ):
        assert rows is not None
        assert [row.values["text"] for row in rows] == [f"{part} {row}" for part in range(2) for row in range(600)]
        assert {row.values["audio_filepath"] for row in rows} == {f"{tmp_path}/part-{n}/a.wav" for n in range(2)}
        assert rows[0].where == f"{tmp_path}/part-0/m.jsonl:1" and rows[-1].where == f"{tmp_path}/part-1/m.jsonl:600"
        assert rows[600].where == f"{tmp_path}/part-1/m.jsonl:1"
