"""Datasets: every shape of embedded audio gives its samples, and no error has more of it than its size."""

import io
import json
import tarfile
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from finetune.core.errors import DataError
from finetune.data.audio import load_audio
from finetune.data.corpora import read_corpus
from finetune.data.formats.hub import read_hub
from finetune.data.row import Row

datasets = pytest.importorskip("datasets")
WAVES = [np.random.default_rng(seed).uniform(-0.3, 0.3, 8000).astype(np.float32) for seed in range(2)]


def encoded(wave: np.ndarray, file_format: str = "WAV") -> bytes:
    file = io.BytesIO()
    soundfile.write(file, wave, 16_000, "FLOAT" if file_format == "WAV" else None, format=file_format)
    return file.getvalue()


def parquet(folder: Path, **columns: list[Any]) -> Sequence[Row]:
    """The rows of a Parquet file with columns and two sentences."""
    data = datasets.Dataset.from_dict({**columns, "text": ["one", "two"]})
    data.to_parquet(str(folder / "m.parquet"))
    return read_corpus(str(folder / "m.parquet"), folder / "media")


def samples(rows: Sequence[Row]) -> list[np.ndarray]:
    return [load_audio(str(row.values["audio_filepath"])) for row in rows]


@pytest.mark.parametrize(
    "columns",
    [
        {"audio": [encoded(wave) for wave in WAVES]},
        {"wav_bytes": [encoded(wave) for wave in WAVES], "path": ["x.wav", "x.wav"]},
        {"audio": [{"bytes": encoded(wave), "path": "same.wav"} for wave in WAVES]},
        {"audio": [{"bytes": encoded(wave), "path": None} for wave in WAVES]},
        {"audio": [{"bytes": encoded(wave)} for wave in WAVES]},
        {"audio": [{"bytes": encoded(wave), "path": "a", "sampling_rate": 16_000} for wave in WAVES]},
        {"audio": [{"array": wave.tolist(), "sampling_rate": 16_000} for wave in WAVES]},
        {"audio": [{"path": "gone.wav", "array": wave.tolist(), "sampling_rate": 16_000} for wave in WAVES]},
        {"audio": [wave.tolist() for wave in WAVES], "sampling_rate": [16_000, 16_000]},
        {"array": [[wave.tolist()] for wave in WAVES], "sr": ["16000", "16000"]},
        {"image": [b"png", b"png"], "audio": [encoded(wave) for wave in WAVES]},
    ],
)
def test_embedded_audio_keeps_its_samples(tmp_path: Path, columns: dict[str, list[Any]]) -> None:
    for _ in range(2):  # the second time, the files exist
        rows = parquet(tmp_path, **columns)
        assert all(np.array_equal(a, b) for a, b in zip(samples(rows), WAVES, strict=True))
        assert [row.values["text"] for row in rows] == ["one", "two"]
        assert all(len(str(row)) < 500 for row in rows)
    assert len(list((tmp_path / "media").glob("*.wav"))) == 2


def test_integer_samples_and_two_channels(tmp_path: Path) -> None:
    pcm = [(wave * 30_000).astype(np.int16) for wave in WAVES]
    rows = parquet(tmp_path, audio=[wave.tolist() for wave in pcm], sampling_rate=[16_000] * 2)
    assert all(np.array_equal(a, b / np.float32(2**15)) for a, b in zip(samples(rows), pcm, strict=True))
    rows = parquet(tmp_path, audio=[{"array": [w.tolist(), (-w).tolist()], "sampling_rate": 16_000} for w in WAVES])
    for row, wave in zip(rows, WAVES, strict=True):
        assert np.array_equal(load_audio(str(row.values["audio_filepath"]), channel=1), -wave)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"audio": [wave.tolist() for wave in WAVES]}, "row 0: column 'audio': samples without a sampling rate"),
        ({"audio": [{"array": w.tolist(), "sampling_rate": 0} for w in WAVES]}, "samples without a sampling rate"),
        ({"audio": [{"array": [[[1.0]]], "sampling_rate": 8000}] * 2}, "not samples of a clip"),
        ({"audio": [["a"], ["b"]], "sampling_rate": [8000, 8000]}, "not samples of a clip"),
    ],
)
def test_unusable_samples_are_refused_by_name(tmp_path: Path, columns: dict[str, list[Any]], message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        parquet(tmp_path, **columns)
    assert len(str(caught.value)) < 400


def test_one_row_without_a_rate_is_a_fault_of_the_row(tmp_path: Path) -> None:
    audio = [{"array": WAVES[0].tolist(), "sampling_rate": 16_000}, {"array": WAVES[1].tolist(), "sampling_rate": None}]
    rows = parquet(tmp_path, audio=audio)
    assert rows[0].fault is None and rows[1].fault is not None and "without a sampling rate" in rows[1].fault.detail


def test_bytes_in_a_text_column_do_not_reach_the_terminal(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        parquet(tmp_path, path=[["x" * 10_000], ["y"]])
    assert len(str(caught.value)) < 600


@pytest.mark.parametrize("metadata", [True, False])
def test_audio_folders_of_the_hub_need_no_torchcodec(tmp_path: Path, metadata: bool) -> None:
    folder = tmp_path / "data"
    for name, wave in zip(("no", "yes"), WAVES, strict=True):
        path = folder / ("." if metadata else name) / f"{name}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encoded(wave))
    if metadata:
        (folder / "metadata.csv").write_text("file_name,transcription\nno.wav,no\nyes.wav,yes\n")
    load = partial(datasets.load_dataset, cache_dir=str(tmp_path / "cache"))
    rows = read_corpus(f"hf:{folder}:train", tmp_path / "media", load_dataset=load)
    assert not [*(tmp_path / "cache").rglob("*.arrow")]  # a stream makes no copy
    assert [row.values["text"] for row in rows] == ["no", "yes"]
    assert all(np.array_equal(a, b) for a, b in zip(samples(rows), WAVES, strict=True))


@pytest.mark.parametrize("text", ["txt", "json"])
@pytest.mark.parametrize("suffix", ["wav", "flac"])
def test_web_datasets_need_no_torchcodec(tmp_path: Path, text: str, suffix: str) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    with tarfile.open(folder / "train-000.tar", "w") as archive:
        for number, wave in enumerate(WAVES):
            words = f"clip {number}"
            for ending, content in (
                (suffix, encoded(wave, suffix.upper())),
                (text, (json.dumps({"text": words, "speaker": "s"}) if text == "json" else words).encode()),
            ):
                entry = tarfile.TarInfo(f"k{number}.{ending}")
                entry.size = len(content)
                archive.addfile(entry, io.BytesIO(content))
    load = partial(datasets.load_dataset, cache_dir=str(tmp_path / "cache"))
    rows = read_corpus(f"hf:{folder}:train", tmp_path / "media", load_dataset=load)
    assert [row.values["text"] for row in rows] == ["clip 0", "clip 1"]
    assert [row.values["id"] for row in rows] == ["k0", "k1"] and "__url__" not in rows[0].values
    assert all(np.allclose(a, b, atol=1e-4) for a, b in zip(samples(rows), WAVES, strict=True))


@pytest.mark.parametrize(
    ("error", "advice"),
    [
        (RuntimeError("Dataset 'x' is a gated dataset on the Hub"), "accept its terms"),
        (RuntimeError("Dataset scripts are no longer supported"), "to Parquet"),
        (ValueError("Unknown split"), "Check the name, config and split"),
    ],
)
def test_the_advice_fits_the_error(tmp_path: Path, error: Exception, advice: str) -> None:
    def refuse(*args: str, split: str) -> None:
        raise error

    with pytest.raises(DataError) as caught:
        read_corpus("hf:org/c:train", tmp_path, load_dataset=refuse)
    assert advice in str(caught.value).split("\n")[1] and str(caught.value).count("\n") == 1


@pytest.mark.parametrize("level", ["", "data"])
def test_a_parent_of_corpora_names_them(tmp_path: Path, level: str) -> None:
    for split in ("train", "test"):
        folder = tmp_path / level / split
        folder.mkdir(parents=True)
        (folder / "a.wav").write_bytes(encoded(WAVES[0]))
        (folder / "metadata.csv").write_text("file_name,text\na.wav,one\n")
    prefix = f"{level}/" if level else ""
    with pytest.raises(DataError, match=rf"subfolders {prefix}test, {prefix}train; give one of them, such as .*test"):
        read_corpus(str(tmp_path), tmp_path / "media")
    assert len(read_corpus(str(tmp_path / level / "train"), tmp_path / "media")) == 1


def test_a_folder_with_splits_of_text_files_names_them(tmp_path: Path) -> None:
    for split in ("train", "dev"):
        (tmp_path / split).mkdir()
        (tmp_path / split / "a.wav").write_bytes(encoded(WAVES[0]))
        (tmp_path / split / "a.txt").write_text("one")
    with pytest.raises(DataError, match="subfolders dev, train; give one of them"):
        read_corpus(str(tmp_path), tmp_path / "media")


def test_times_in_the_object_of_embedded_audio_are_not_lost(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "talk.wav", np.zeros(64_000), 16_000)
    data = (tmp_path / "talk.wav").read_bytes()
    objects = [{"bytes": data, "path": "talk.wav", "start": start, "end": start + 1.5} for start in (0.0, 2.0)]
    rows = parquet(tmp_path, audio=objects, text=["one", "two"])
    assert [(row.values["offset"], row.values["duration"]) for row in rows] == [(0.0, 1.5), (2.0, 1.5)]


CLOSED = ConnectionError("the connection was closed")


def stream(
    rows: list[dict[str, Any]], features: Any = None, fails_at: int | None = None, error: Exception = CLOSED
) -> Any:
    """A stream of `datasets` as `load_dataset(..., streaming=True)` returns it."""

    def generate() -> Iterator[dict[str, Any]]:
        for number, row in enumerate(rows):
            if number == fails_at:
                raise error
            yield row

    return datasets.IterableDataset.from_generator(generate, features=features)


def read_stream(folder: Path, dataset: Any) -> list[Row]:
    def load(name: str, split: str, streaming: bool = False) -> Any:
        assert streaming, "the complete data set is loaded"
        return dataset

    return list(read_corpus("hf:org/c:train", folder / "media", load_dataset=load))


@pytest.mark.parametrize(
    "rows",
    [
        [{"audio": {"bytes": encoded(wave), "path": None}} for wave in WAVES],
        [{"wav": encoded(wave)} for wave in WAVES],
        [{"audio": {"array": wave.tolist(), "sampling_rate": 16_000}} for wave in WAVES],
        [{"speech": wave.tolist(), "sampling_rate": 16_000} for wave in WAVES],
        [{"picture": {"bytes": b"png", "path": "x.png"}, "audio": {"bytes": encoded(wave)}} for wave in WAVES],
    ],
)
def test_a_stream_without_known_features(tmp_path: Path, rows: list[dict[str, Any]]) -> None:
    dataset = stream([row | {"text": str(number)} for number, row in enumerate(rows)])
    assert dataset.features is None
    found = read_stream(tmp_path, dataset)
    assert [row.values["text"] for row in found] == ["0", "1"] and "picture" not in found[0].values
    assert all(np.array_equal(a, b) for a, b in zip(samples(found), WAVES, strict=True))
    assert [row.where for row in found] == ["hf:org/c:train: row 0", "hf:org/c:train: row 1"]


def test_a_stream_with_features_needs_no_torchcodec_and_has_names_of_classes(tmp_path: Path) -> None:
    features = datasets.Features(
        {"audio": datasets.Audio(), "label": datasets.ClassLabel(names=["no", "yes"]), "n": datasets.Value("int64")}
    )
    rows = [{"audio": {"bytes": encoded(w), "path": "a.wav"}, "label": 1 - n, "n": 1} for n, w in enumerate(WAVES)]
    found = read_stream(tmp_path, stream(rows, features))
    assert [row.values["text"] for row in found] == ["yes", "no"] and [row.values["n"] for row in found] == [1, 1]
    assert all(np.array_equal(a, b) for a, b in zip(samples(found), WAVES, strict=True))


@pytest.mark.parametrize("fails", ["at once", "at the first row", "inside of another error"])
def test_a_data_set_that_cannot_be_streamed_is_loaded(tmp_path: Path, fails: str) -> None:
    rows = [{"audio": encoded(wave), "text": "x"} for wave in WAVES]

    def load(name: str, split: str, streaming: bool = False) -> Any:
        if not streaming:
            return datasets.Dataset.from_list(rows)
        if fails == "at once":
            raise NotImplementedError("zip files in tar files cannot be streamed")
        if fails == "inside of another error":
            raise RuntimeError("cannot be generated") from NotImplementedError("zip files in tar files")
        return stream(rows, fails_at=0, error=NotImplementedError("no streaming of this archive"))

    found = list(read_corpus("hf:org/c:train", tmp_path, load_dataset=load))
    assert all(np.array_equal(a, b) for a, b in zip(samples(found), WAVES, strict=True))


def test_a_stream_that_breaks_is_an_error_not_a_shorter_corpus(tmp_path: Path) -> None:
    rows = [{"audio": encoded(wave), "text": "x"} for wave in WAVES] * 2
    with pytest.raises(DataError, match="hf:org/c:train: the stream failed after 3 rows: ConnectionError: the conn"):
        read_stream(tmp_path, stream(rows, fails_at=3))


def test_an_empty_stream_has_no_rows(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="the corpus has no rows"):
        read_stream(tmp_path, stream([]))


def test_audio_with_an_address_is_downloaded_once(tmp_path: Path) -> None:
    """As in a stream of an audio folder on the hub, whose rows have `hf://` addresses."""
    fsspec = pytest.importorskip("fsspec")
    files = fsspec.filesystem("memory")
    for number, wave in enumerate(WAVES):
        files.pipe(f"/{tmp_path.name}/{number}/a.wav", encoded(wave))
    rows = [
        {"audio": {"bytes": None, "path": f"memory:///{tmp_path.name}/{n}/a.wav"}, "text": str(n)} for n in range(2)
    ]
    found = read_stream(tmp_path, stream(rows))
    assert all(np.array_equal(a, b) for a, b in zip(samples(found), WAVES, strict=True))
    files.rm(f"/{tmp_path.name}", recursive=True)
    again = read_stream(tmp_path, stream(rows))
    assert [row.values for row in again] == [row.values for row in found]


@pytest.mark.parametrize("builder", ["parquet", "json", "csv"])
def test_the_builders_of_datasets_on_a_local_folder(tmp_path: Path, builder: str) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    for number, wave in enumerate(WAVES):
        (tmp_path / f"{number}.wav").write_bytes(encoded(wave))
    rows = [{"path": str(tmp_path / f"{n}.wav"), "text": str(n), "start": 0.1, "end": 0.3} for n in range(2)]
    if builder == "parquet":
        rows = [{"audio": {"bytes": encoded(w), "path": "x.wav"}, "text": str(n)} for n, w in enumerate(WAVES)]
    data = datasets.Dataset.from_list(rows)
    for split in ("train", "test"):
        getattr(data, f"to_{builder}")(str(folder / f"{split}.{builder}"))
    load = partial(datasets.load_dataset, cache_dir=str(tmp_path / "cache"))
    found = list(read_corpus(f"hf:{folder}:train", tmp_path / "media", load_dataset=load))
    assert [row.values["text"] for row in found] == (["0", "1"] if builder != "csv" else [0, 1])
    assert all(np.array_equal(a, b) for a, b in zip(samples(found), WAVES, strict=True))
    assert builder == "parquet" or [row.values["offset"] for row in found] == [0.1, 0.1]
    assert not [*(tmp_path / "cache").rglob("*.arrow")]


def test_two_corpora_can_be_read_in_turns(tmp_path: Path) -> None:
    """The place of torchcodec is taken only while a row is made."""
    original = datasets.Audio.encode_example
    features = datasets.Features({"audio": datasets.Audio(), "text": datasets.Value("string")})
    rows = [{"audio": {"bytes": encoded(wave), "path": "a.wav"}, "text": "x"} for wave in WAVES]

    def load(name: str, split: str, streaming: bool = False) -> Any:
        return stream(rows, features)

    first, second = (read_hub("hf:org/c:train", tmp_path, load) for _ in range(2))
    for _ in range(2):
        assert next(first).values == next(second).values
        assert datasets.Audio.encode_example is original


@pytest.mark.parametrize("error", [ValueError("Bad split: trian. Available splits: ['train']"), CLOSED])
def test_another_error_does_not_load_the_complete_data_set(tmp_path: Path, error: Exception) -> None:
    def load(name: str, split: str, streaming: bool = False) -> Any:
        assert streaming, "the complete data set is loaded"
        raise error

    with pytest.raises(DataError, match=f"hf:org/c:trian: {type(error).__name__}: {str(error)[:9]}"):
        read_corpus("hf:org/c:trian", tmp_path, load_dataset=load)
