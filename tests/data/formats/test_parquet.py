"""Parquet files and folders: shards in order, one split, one row group in memory, nothing decoded by `datasets`."""

import io
import json
import logging
import sys
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile

from finetune.core.errors import DataError
from finetune.data.audio import load_audio
from finetune.data.corpora import has_audio_file, preview_rows, read_corpus
from finetune.data.formats import parquet
from finetune.data.formats.embedded_audio import audio_file
from finetune.data.row import Row

AUDIO = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def wave(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-0.3, 0.3, 1600).astype(np.float32)


def encoded(seed: int) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, wave(seed), 16_000, "FLOAT", format="WAV")
    return file.getvalue()


def test_a_long_name_that_is_not_ascii_fits_into_a_file_name(tmp_path: Path) -> None:
    path = audio_file({"bytes": encoded(0), "path": "\u65e5" * 200 + ".wav"}, None, tmp_path / "media")
    assert path and len(Path(path).name.encode()) < 255 and Path(path).read_bytes() == encoded(0)


def write(path: Path, seeds: list[int]) -> Path:
    """A Parquet file with a clip for each seed, whose text is the seed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [{"audio": {"bytes": encoded(seed), "path": f"{seed}.wav"}, "text": str(seed)} for seed in seeds]
    pq.write_table(pa.Table.from_pylist(rows, pa.schema([("audio", AUDIO), ("text", pa.string())])), path)
    return path


def read(source: Path) -> list[Row]:
    return list(read_corpus(str(source), source.parent / "media"))


def check(rows: list[Row], seeds: list[int]) -> None:
    """Every row has the text and the samples of its seed."""
    assert [row.values["text"] for row in rows] == [str(seed) for seed in seeds]
    for row, seed in zip(rows, seeds, strict=True):
        assert np.array_equal(load_audio(str(row.values["audio_filepath"])), wave(seed))


@pytest.mark.parametrize(
    "names",
    [
        ("data/train-00000-of-00002.parquet", "data/train-00001-of-00002.parquet"),
        ("train.clean.100-00000-of-00002.parquet", "train.clean.100-00001-of-00002.parquet"),
        ("train-00000-of-00002-a09b74b3ef9c3b56.parquet", "train-00001-of-00002-00b74b3ef9c3b567.parquet"),
        ("default/train/0000.parquet", "default/train/0001.parquet"),
        ("part-0.parquet", "part-1.parquet"),
        ("a.parquet", "b.parquet"),
        ("train_0.parquet", "train_1.parquet"),
    ],
)
def test_a_folder_of_one_split_is_read_in_the_order_of_its_files(tmp_path: Path, names: tuple[str, str]) -> None:
    corpus = tmp_path / "corpus"
    for number, name in reversed([*enumerate(names)]):
        write(corpus / name, [2 * number, 2 * number + 1])
    (corpus / "README.md").write_text("a data set")
    rows = read(corpus)
    check(rows, [0, 1, 2, 3])
    assert [row.where for row in rows] == [f"{corpus / name}: row {n}" for name in names for n in (0, 1)]
    preview = preview_rows(str(corpus))
    assert preview is not None and [row.where for row in preview] == [row.where for row in rows]


def test_a_pattern_names_the_shards_of_one_split(tmp_path: Path) -> None:
    for number in (1, 0):
        write(tmp_path / "data" / f"train-0000{number}-of-00002.parquet", [number])
        write(tmp_path / "data" / f"test-0000{number}-of-00002.parquet", [9])
    check(read(tmp_path / "data" / "train-*.parquet"), [0, 1])


@pytest.mark.parametrize(
    ("names", "splits", "example"),
    [
        (("data/train-00000-of-00001.parquet", "data/test-00000-of-00001.parquet"), "test, train", "data/test-"),
        (
            (
                "data/test-00000-of-00002.parquet",
                "data/test-00001-of-00002.parquet",
                "data/train-00000-of-00001.parquet",
            ),
            "test, train",
            r"data/test-\*.parquet",
        ),
        (
            ("test-00000-of-00001-a09b74b3ef9c3b56.parquet", "train-00000-of-00001-0123456789abcdef.parquet"),
            "test, train",
            "test-00",
        ),
        (("train/0000.parquet", "train/0001.parquet", "validation/0000.parquet"), "train, validation", "train"),
        (("train.parquet", "valid.parquet"), "train, valid", "train.parquet"),
        (
            ("train.clean.100-00000-of-00001.parquet", "train.other.500-00000-of-00001.parquet"),
            "train.clean.100, train.other.500",
            "train.clean.100-",
        ),
    ],
)
def test_a_folder_of_several_splits_names_them(
    tmp_path: Path, names: tuple[str, ...], splits: str, example: str
) -> None:
    for name in names:
        write(tmp_path / name, [0])
    with pytest.raises(DataError, match=f"are of the splits {splits}; give one of them, such as {tmp_path}/{example}"):
        read(tmp_path)


def test_several_data_sets_in_one_folder_are_named(tmp_path: Path) -> None:
    for language in ("de", "en"):
        write(tmp_path / language / "train-00000-of-00001.parquet", [0])
    with pytest.raises(DataError, match=rf"several data sets: de, en; give one of them, such as {tmp_path}/de"):
        read(tmp_path)
    check(read(tmp_path / "en"), [0])


def test_folders_of_a_partition_are_columns(tmp_path: Path) -> None:
    for number, language in enumerate(("de", "en")):
        write(tmp_path / f"lang={language}" / "part-0.parquet", [number])
    rows = read(tmp_path)
    check(rows, [0, 1])
    assert [row.values["language"] for row in rows] == ["de", "en"]


def test_missing_shards_are_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for number in (0, 3):
        write(tmp_path / f"train-0000{number}-of-00005.parquet", [number])
    with caplog.at_level(logging.WARNING):
        check(read(tmp_path), [0, 3])
    assert "3 of the shards that the file names count are missing" in caplog.text


def test_paths_of_audio_start_at_the_folder_of_their_file(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "a.wav").write_bytes(encoded(7))
    pq.write_table(pa.table({"file": ["a.wav"], "text": ["7"]}), folder / "train-00000-of-00001.parquet")
    check(read(tmp_path), [7])


def test_nothing_is_read_by_the_package_datasets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Class labels come from the metadata that `datasets` writes."""
    features = {
        "label": {"names": ["no", "yes"], "_type": "ClassLabel"},
        "audio": {"_type": "Audio"},
        "picture": {"_type": "Image"},
    }
    metadata = {b"huggingface": json.dumps({"info": {"features": features}}).encode()}
    schema = pa.schema([("picture", AUDIO), ("label", pa.int64()), ("audio", AUDIO)], metadata)
    rows = [
        {"picture": {"bytes": b"png", "path": "x.png"}, "label": label, "audio": {"bytes": encoded(n), "path": "a.wav"}}
        for n, label in enumerate([1, 0, -1])
    ]
    pq.write_table(pa.Table.from_pylist(rows, schema), tmp_path / "m.parquet")
    monkeypatch.setitem(sys.modules, "datasets", None)
    found = read(tmp_path / "m.parquet")
    assert [row.values["text"] for row in found] == ["yes", "no", None] and "picture" not in found[0].values
    assert np.array_equal(load_audio(str(found[1].values["audio_filepath"])), wave(1))


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (pa.large_binary(), encoded(5)),
        (pa.struct([("bytes", pa.list_(pa.uint8())), ("path", pa.string())]), {"bytes": list(encoded(5)), "path": "x"}),
        (pa.struct([("array", pa.list_(pa.float32())), ("sampling_rate", pa.int64())]), None),
        (pa.struct([("array", pa.large_list(pa.float64())), ("sampling_rate", pa.int64())]), None),
        (pa.struct([("array", pa.list_(pa.float32(), 1600)), ("sampling_rate", pa.int64())]), None),
        (pa.struct([("array", pa.list_(pa.list_(pa.float32()))), ("sampling_rate", pa.int64())]), "channel"),
        (
            pa.struct([("bytes", pa.binary()), ("path", pa.string()), ("sampling_rate", pa.int64())]),
            {"bytes": encoded(5)},
        ),
    ],
)
def test_every_type_of_audio(tmp_path: Path, kind: pa.DataType, value: Any) -> None:
    samples = wave(5).tolist()
    value = (
        value
        if isinstance(value, bytes | dict)
        else {"array": [samples] if value else samples, "sampling_rate": 16_000}
    )
    pq.write_table(pa.table({"audio": pa.array([value], kind), "text": ["5"]}), tmp_path / "m.parquet")
    for _ in range(2):  # the second time, the file exists
        check(read(tmp_path / "m.parquet"), [5])
    assert len(list((tmp_path / "media").iterdir())) == 1


def test_one_row_group_is_in_memory(tmp_path: Path) -> None:
    size, groups = 100_000, 12
    schema = pa.schema([("audio", AUDIO), ("text", pa.string())])
    with pq.ParquetWriter(tmp_path / "m.parquet", schema) as writer:
        for group in range(groups):
            clips = [np.random.default_rng(10 * group + n).bytes(size) for n in range(10)]
            rows = [{"audio": {"bytes": clip, "path": None}, "text": "x"} for clip in clips]
            writer.write_table(pa.Table.from_pylist(rows, schema))
            del rows, clips
    before, most, number = pa.total_allocated_bytes(), 0, 0
    for _ in parquet.read(tmp_path / "m.parquet", tmp_path / "media"):
        most, number = max(most, pa.total_allocated_bytes() - before), number + 1
    assert number == 10 * groups and 0 < most < 5 * 10 * size  # the pages as stored and as read, not 12 groups


def test_a_damaged_file_is_an_error_with_its_name_and_row(tmp_path: Path) -> None:
    path = write(tmp_path / "m.parquet", list(range(40)))
    content = bytearray(path.read_bytes())
    content[20_000:40_000] = bytes(20_000)
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"m.parquet: the Parquet file cannot be loaded \(at row \d+\)"):
        read(path)
    path.write_bytes(b"no parquet")
    with pytest.raises(DataError, match=r"m.parquet: the Parquet file cannot be loaded \(at row 0\)"):
        read(path)


def test_a_folder_with_a_metadata_table_is_not_read_as_parquet(tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(encoded(1))
    (tmp_path / "metadata.csv").write_text("file_name,text\na.wav,1\n")
    write(tmp_path / "features.parquet", [5])
    check(read(tmp_path), [1])


def preview(path: Path) -> list[Row]:
    rows = preview_rows(str(path))
    assert rows is not None and not (path.parent / "media").exists() and len(list(path.parent.iterdir())) == 1
    return list(rows)


def test_check_reads_the_rows_but_writes_no_audio(tmp_path: Path) -> None:
    """Seconds come from the first rows; the others have their mean."""
    path = tmp_path / "m.parquet"
    clips = [encoded(n) for n in range(parquet.ROWS_AT_ONCE - 1)] + [encoded(0)[:-3200]] + [encoded(0)[:-3200]] * 9
    rows = [{"audio": {"bytes": clip, "path": "a.wav"}, "text": str(n), "speaker": "s"} for n, clip in enumerate(clips)]
    pq.write_table(pa.Table.from_pylist(rows), path)
    found = preview(path)
    assert [row.values["text"] for row in found] == [str(n) for n in range(len(clips))]
    assert {row.values["audio_filepath"] for row in found} == {str(path)} and not any(row.fault for row in found)
    seconds = [row.values["duration"] for row in found]
    assert seconds[:15] == [0.1] * 15 and seconds[15] == 0.05
    assert seconds[16:] == [pytest.approx((15 * 0.1 + 0.05) / 16)] * 9


@pytest.mark.parametrize(
    ("row", "times"),
    [
        ({"audio": {"array": [0.5] * 800, "sampling_rate": 8000}}, (None, 0.1)),
        ({"audio": [0.5] * 800, "sampling_rate": 8000}, (None, 0.1)),
        ({"audio": [[0.5] * 800], "sampling_rate": 8000}, (None, 0.1)),
        ({"audio": encoded(1)}, (None, 0.1)),
        ({"audio": b"a format that only PyAV reads"}, (None, None)),
        ({"audio": encoded(1), "start": 0.01, "end": 0.04}, (0.01, 0.03)),
        ({"audio": {"bytes": encoded(1), "start": 0.01, "end": 0.04}}, (0.01, 0.03)),
        ({"audio": encoded(1), "duration": 0.1}, (None, 0.1)),
    ],
)
def test_the_times_of_rows_for_check(tmp_path: Path, row: dict[str, Any], times: tuple[Any, Any]) -> None:
    pq.write_table(pa.Table.from_pylist([row | {"text": "x"}]), tmp_path / "m.parquet")
    (found,) = preview(tmp_path / "m.parquet")
    assert (found.values.get("offset"), found.values.get("duration")) == times


def test_check_finds_audio_beside_a_parquet_file_and_says_if_it_is_missing(tmp_path: Path) -> None:
    rows = [{"audio": {"bytes": None, "path": name}, "text": name} for name in ("a.wav", "gone.wav")]
    pq.write_table(
        pa.Table.from_pylist(rows, pa.schema([("audio", AUDIO), ("text", pa.string())])), tmp_path / "m.parquet"
    )
    (tmp_path / "a.wav").write_bytes(encoded(1))
    found = preview_rows(str(tmp_path / "m.parquet"))
    assert found is not None and [has_audio_file(row) for row in found] == [True, False]


def test_samples_in_a_list_of_a_fixed_size(tmp_path: Path) -> None:
    audio = pa.array([wave(5).tolist()], pa.list_(pa.float32(), 1600))
    pq.write_table(pa.table({"audio": audio, "sampling_rate": [16_000], "text": ["5"]}), tmp_path / "m.parquet")
    check(read(tmp_path / "m.parquet"), [5])


def test_a_picture_is_no_audio(tmp_path: Path) -> None:
    metadata = {b"huggingface": json.dumps({"info": {"features": {"picture": {"_type": "Image"}}}}).encode()}
    schema = pa.schema([("picture", AUDIO), ("path", pa.string()), ("text", pa.string())], metadata)
    row = {"picture": {"bytes": b"png", "path": "x.png"}, "path": "7.wav", "text": "7"}
    pq.write_table(pa.Table.from_pylist([row], schema), tmp_path / "m.parquet")
    (tmp_path / "7.wav").write_bytes(encoded(7))
    check(read(tmp_path / "m.parquet"), [7])


def test_the_row_group_that_is_damaged_is_named_by_its_first_row(tmp_path: Path) -> None:
    schema = pa.schema([("audio", pa.binary()), ("text", pa.string())])
    with pq.ParquetWriter(tmp_path / "m.parquet", schema) as writer:
        for group in range(3):
            clip = np.random.default_rng(group).bytes(50_000)
            writer.write_table(pa.Table.from_pylist([{"audio": clip, "text": "x"}] * 5, schema))
    content = bytearray((tmp_path / "m.parquet").read_bytes())
    place = content.find(np.random.default_rng(2).bytes(50_000)[:100])  # in the last row group
    content[place - 12 : place] = bytes(12)
    (tmp_path / "m.parquet").write_bytes(content)
    with pytest.raises(DataError, match=r"m.parquet: the Parquet file cannot be loaded \(at row 10\)"):
        read(tmp_path / "m.parquet")


def test_parquet_files_on_another_machine(tmp_path: Path) -> None:
    files = fsspec.filesystem("memory")
    for number in range(2):
        files.pipe(f"/{tmp_path.name}/train-{number}.parquet", write(tmp_path / "m.parquet", [number]).read_bytes())
    source = f"memory://{tmp_path.name}/train-*.parquet"
    check(list(read_corpus(source, tmp_path / "media")), [0, 1])
    assert preview_rows(source) is None
    for name in (f"memory://{tmp_path.name}/gone.parquet", "nothing://x/gone.parquet"):
        with pytest.raises(DataError, match=f"{name}: the Parquet file cannot be loaded"):
            read_corpus(name, tmp_path)
