"""`finetune convert`: each format has the clips of the corpus, sample by sample."""

import gzip
import io
import json
import tarfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile
from command import Command

from finetune.core.errors import DataError
from finetune.data.audio import load_audio, load_utterance
from finetune.data.byte_range import parse_byte_range
from finetune.data.convert import ConvertOptions, Target, convert, encoded
from finetune.data.corpora import read_corpus
from finetune.data.manifest import Utterance, read_manifest
from finetune.data.writers.clip_audio import ClipAudio, audio_suffix, encode_clip, is_whole_file
from finetune.data.writers.tar_shards import write_tar_shards
from finetune.data.writers.task_columns import task_columns

RATE = 24_000
ROWS = [
    {"id": "whole", "audio_filepath": "mono.wav", "text": "the whole file", "language": "en", "speaker": "ann"},
    {"id": "part", "audio_filepath": "long.wav", "offset": 0.5, "duration": 0.25, "text": "a part", "keywords": ["a"]},
    {"id": "left", "audio_filepath": "two.flac", "channel": 0, "text": "grüß dich", "dialect": "Wien"},
    {"id": "both", "audio_filepath": "two.flac", "text": "both sides", "score": 0.5, "terms": ["x", "y"], "n": 1},
    {
        "id": "lossy",
        "audio_filepath": "lossy.ogg",
        "offset": 0.1,
        "duration": 0.5,
        "text": "a lossy part",
        "tags": [1],
        "n": 0.5,
        "big": 2**70,
    },
]


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """A manifest of segments, channels and a lossy file."""
    rng = np.random.default_rng(0)
    soundfile.write(tmp_path / "mono.wav", rng.integers(-9000, 9000, RATE).astype(np.int16), RATE)
    soundfile.write(tmp_path / "long.wav", rng.integers(-9000, 9000, 2 * RATE).astype(np.int16), RATE)
    soundfile.write(tmp_path / "two.flac", rng.integers(-9000, 9000, (RATE, 2)).astype(np.int16), RATE)
    soundfile.write(tmp_path / "lossy.ogg", rng.normal(0, 0.1, RATE), RATE)
    (tmp_path / "corpus.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return tmp_path / "corpus.jsonl"


def clips(corpus: Path, tmp_path: Path) -> dict[str, Utterance]:
    """The clips of the corpus."""
    convert(str(corpus), tmp_path / "expected.jsonl", ConvertOptions())
    return {item.id: item for item in read_manifest(tmp_path / "expected.jsonl")}


def assert_same_audio(samples: np.ndarray, item: Utterance) -> None:
    expected = load_utterance(item)
    assert len(samples) == len(expected)
    exact = item.id != "lossy"  # 24 bits of a decoder's floating-point numbers
    np.testing.assert_allclose(samples, expected, rtol=0, atol=0 if exact else 2e-7)


def test_the_manifest_keeps_every_row(corpus: Path, tmp_path: Path) -> None:
    found = clips(corpus, tmp_path)
    assert list(found) == [row["id"] for row in ROWS]
    for row in ROWS:
        item = found[str(row["id"])]
        assert (item.text, item.offset, item.channel) == (row["text"], row.get("offset", 0.0), row.get("channel"))
    assert found["part"].keywords == ("a",) and found["left"].extra == {"dialect": "Wien"}


@pytest.mark.parametrize("target", ["manifest", "nemo"])
@pytest.mark.parametrize("files", [False, True])
def test_manifests_give_the_same_clips_again(corpus: Path, tmp_path: Path, target: Target, files: bool) -> None:
    out = tmp_path / "out.jsonl"
    convert(str(corpus), out, ConvertOptions(target, audio=tmp_path / "clips" if files else None))
    convert(str(out), tmp_path / "again.jsonl", ConvertOptions())
    again = {item.id: item for item in read_manifest(tmp_path / "again.jsonl")}
    for name, item in clips(corpus, tmp_path).items():
        for field in ("text", "language", "speaker", "keywords", "extra"):
            assert getattr(again[name], field) == getattr(item, field)
        assert_same_audio(load_utterance(again[name]), item)
        assert (Path(again[name].audio_filepath).parent.name == "clips") == files
    first = json.loads(out.read_text().splitlines()[0])
    assert ("lang" in first, "manifest_version" in first) == ((True, False) if target == "nemo" else (False, True))


def test_a_cut_has_the_recording_and_one_supervision(corpus: Path, tmp_path: Path) -> None:
    out = tmp_path / "cuts.jsonl.gz"
    convert(str(corpus), out, ConvertOptions())
    cuts = {cut["id"]: cut for cut in map(json.loads, gzip.decompress(out.read_bytes()).splitlines())}
    part = cuts["part"]
    assert (part["type"], part["start"], part["duration"], part["channel"]) == ("MonoCut", 0.5, 0.25, 0)
    assert part["supervisions"][0] | {"id": ""} == {
        "id": "",
        "recording_id": str(tmp_path / "long.wav"),
        "start": 0.0,
        "duration": 0.25,
        "channel": 0,
        "text": "a part",
        "custom": {"keywords": ["a"]},
    }
    assert part["recording"]["sampling_rate"] == RATE and part["recording"]["num_samples"] == 2 * RATE
    assert (cuts["both"]["type"], cuts["both"]["channel"]) == ("MultiCut", [0, 1])
    assert cuts["left"]["supervisions"][0]["custom"] == {"dialect": "Wien"}
    before = out.read_bytes()
    convert(str(corpus), out, ConvertOptions(overwrite=True))
    assert out.read_bytes() == before


def test_shards_have_each_clip_as_a_member(corpus: Path, tmp_path: Path) -> None:
    result = convert(str(corpus), tmp_path / "shards", ConvertOptions("shards", shard_bytes=50_000))
    assert [path.name for path in result.files] == ["shard-000000.tar", "shard-000001.tar", "shard-000002.tar"]
    expected, names = clips(corpus, tmp_path), set[str]()
    for item in read_manifest(tmp_path / "shards" / "manifest.jsonl"):
        member = parse_byte_range(item.audio_filepath)
        assert member is not None and item.offset == 0 and item.channel is None
        with tarfile.open(tmp_path / "shards" / member.file) as archive:
            info = archive.getmember(member.name)
            assert (info.offset_data, info.size, info.mtime) == (member.start, member.length, 0)
            audio, text = archive.extractfile(info), archive.extractfile(member.name.replace("flac", "json"))
            assert audio and text
            (tmp_path / "clip.flac").write_bytes(audio.read())
            assert json.loads(text.read())["text"] == item.text == expected[item.id].text
        assert_same_audio(load_audio(tmp_path / "clip.flac"), expected[item.id])
        assert item.audio_digest == (expected[item.id].audio_digest if item.id != "lossy" else "")
        names.add(item.id)
    assert names == expected.keys()
    assert not list((tmp_path / "shards").glob(".*"))


def test_a_data_set_is_read_by_the_library_datasets(corpus: Path, tmp_path: Path) -> None:
    result = convert(str(corpus), tmp_path / "hf", ConvertOptions("hf", split="test"))
    assert [path.name for path in result.files] == ["test-00000-of-00001.parquet"]
    rows = {row.values["id"]: row.values for row in read_corpus(f"hf:{tmp_path / 'hf'}:test", tmp_path / "media")}
    for name, item in clips(corpus, tmp_path).items():
        assert (rows[name]["text"], rows[name]["speaker"] or "") == (item.text, item.speaker)
        assert_same_audio(load_audio(str(rows[name]["audio_filepath"])), item)
    assert rows["both"]["score"] == 0.5 and rows["lossy"]["tags"] == "[1]" and rows["part"]["keywords"] == ["a"]
    assert rows["both"]["terms"] == ["x", "y"] and rows["whole"]["terms"] is None
    assert (rows["both"]["n"], rows["lossy"]["n"], rows["lossy"]["big"]) == (1.0, 0.5, str(2**70))


@pytest.mark.parametrize("target", ["hf", "shards", "manifest"])
def test_audio_inside_a_corpus_is_not_left_a_second_time(corpus: Path, tmp_path: Path, target: Target) -> None:
    """The audio of Parquet files is written to files while the rows are checked."""
    convert(str(corpus), tmp_path / "source", ConvertOptions("hf"))
    folder = tmp_path / "results"
    folder.mkdir()
    out = folder / ("clips.jsonl" if target == "manifest" else "clips")
    result = convert(str(tmp_path / "source"), out, ConvertOptions(target))
    assert result.clips == len(ROWS)
    names = sorted(path.name for path in folder.iterdir())
    assert names == (["clips.jsonl", "clips_media"] if target == "manifest" else ["clips"])
    if target == "manifest":
        convert(str(tmp_path / "source"), folder / "x.jsonl", ConvertOptions(audio=folder / "x"))
        assert sorted(path.name for path in folder.iterdir()) == [*names, "x", "x.jsonl"]
        assert all(Path(item.audio_filepath).parent == folder / "x" for item in read_manifest(folder / "x.jsonl"))


def test_opus_is_small_and_keeps_the_length(corpus: Path, tmp_path: Path) -> None:
    convert(str(corpus), tmp_path / "out.jsonl", ConvertOptions(audio=tmp_path / "clips", codec="opus"))
    for item in read_manifest(tmp_path / "out.jsonl"):
        assert item.audio_filepath.endswith(".opus")
        assert abs(len(load_utterance(item)) / 16_000 - item.duration) < 0.01
        assert item.audio_digest == ""


def test_a_complete_compressed_file_keeps_its_bytes(corpus: Path) -> None:
    path = corpus.with_name("lossy.ogg")
    item = Utterance("a", str(path), 1.0, "")
    assert is_whole_file(item)
    assert encode_clip(item).data == path.read_bytes() and encode_clip(item).suffix == ".ogg"
    assert not is_whole_file(Utterance("a", str(path), 0.5, ""))
    assert not is_whole_file(Utterance("a", str(corpus.with_name("two.flac")), 1.0, "", channel=1))


def test_unusable_rows_are_reported(corpus: Path, finetune: Command, tmp_path: Path) -> None:
    corpus.write_text(corpus.read_text() + json.dumps({"audio_filepath": "none.wav", "text": "no file"}) + "\n")
    result = finetune("convert", corpus, tmp_path / "out.jsonl")
    assert result.code == 0
    assert "missing audio" in result.out and "5 clips" in result.out and "1 row left out" in result.out


def test_an_unknown_language_is_named(corpus: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    corpus.write_text(corpus.read_text().replace('"language": "en"', '"language": "xx"'))
    convert(str(corpus), tmp_path / "out.jsonl", ConvertOptions())
    assert "unknown language in 1 row: 'xx' 1; use a code such as en or ja" in caplog.text


@pytest.mark.parametrize(
    ("out", "more", "message"),
    [
        ("out.xyz", [], "choose the format with --to manifest, nemo, lhotse, hf, shards"),
        ("corpus.jsonl", [], "corpus.jsonl already exists"),
        ("", ["--to", "nemo"], "this is a folder; name a file for --to nemo"),
        ("corpus.jsonl", ["--to", "shards"], "this is a file; name a folder for --to shards"),
        ("", ["--to", "hf"], "already exists"),
        ("shards", ["--to", "shards", "--audio", "x"], "--audio x: shards has the audio in its own files; leave out"),
    ],
)
def test_an_output_that_cannot_be_written(
    corpus: Path, finetune: Command, tmp_path: Path, out: str, more: list[str], message: str
) -> None:
    before = corpus.read_bytes()
    result = finetune("convert", corpus, tmp_path / out, *more)
    assert result.code == 1 and message in result.err
    assert corpus.read_bytes() == before


@pytest.mark.parametrize("size", ["0", "x", "-1M", "", "nan", "inf"])
def test_a_wrong_size_is_a_usage_error(corpus: Path, finetune: Command, tmp_path: Path, size: str) -> None:
    result = finetune("convert", corpus, tmp_path / "s", "--to", "shards", f"--shard-size={size}")
    assert result.code == 2 and "is not a size" in result.err


def test_a_member_of_an_archive_needs_files_for_nemo(tmp_path: Path) -> None:
    from finetune.data.convert import write_corpus

    item = Utterance("a", "/x/shard.tar::a.flac?bytes=512-1023", 1.0, "a")
    for target in ("nemo", "lhotse"):
        with pytest.raises(DataError, match="cannot name .*; add --audio DIR"):
            write_corpus(tmp_path / "out", target, [item], ConvertOptions())


def test_prepare_writes_the_shards_of_each_split(corpus: Path, finetune: Command, tmp_path: Path, nano: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        f"runs: {tmp_path / 'runs'}\nmodel: {{base: {nano}}}\n"
        f"data: {{train: [{corpus}], valid: [{corpus}], test: [{corpus}], allow_leaks: true}}\n"
    )
    result = finetune("prepare", recipe, "--shards", tmp_path / "shards")
    assert result.code == 0, result.err
    for split in ("train", "valid", "test"):
        assert f"{split:6} 1 shard in" in result.out
        items = read_manifest(tmp_path / "shards" / split / "manifest.jsonl")
        assert [item.id for item in items] == [row["id"] for row in ROWS]
    again = finetune("prepare", recipe, "--shards", tmp_path / "shards")
    assert again.code == 1 and "has files already; delete it, or choose another folder" in again.err


def test_shards_are_a_corpus_as_a_folder_and_by_their_manifest(corpus: Path, tmp_path: Path) -> None:
    convert(str(corpus), tmp_path / "shards", ConvertOptions("shards", shard_bytes=50_000))
    expected = clips(corpus, tmp_path)
    for number, source in enumerate((tmp_path / "shards", tmp_path / "shards" / "manifest.jsonl")):
        again = tmp_path / f"again{number}.jsonl"
        convert(str(source), again, ConvertOptions())
        items = read_manifest(again)
        assert [item.id for item in items] == list(expected)
        for item in items:
            for field in ("text", "language", "speaker", "keywords", "extra"):
                assert getattr(item, field) == getattr(expected[item.id], field)
            assert_same_audio(load_utterance(item), expected[item.id])
    convert(str(tmp_path / "shards"), tmp_path / "nemo.jsonl", ConvertOptions("nemo", audio=tmp_path / "files"))
    assert len(list((tmp_path / "files").iterdir())) == len(ROWS)


def test_lhotse_and_parquet_keep_tasks_and_weights(corpus: Path, tmp_path: Path) -> None:
    rows = [
        {**ROWS[0], "task": "translate", "target_language": "de", "text": "die Datei", "sampling_weight": 3},
        {**ROWS[1], "instruction": "write the numbers", "text_style": "raw"},
    ]
    corpus.write_text("".join(json.dumps(row) + "\n" for row in rows))
    expected = clips(corpus, tmp_path)
    for target, name in (("lhotse", "cuts.jsonl.gz"), ("hf", "folder")):
        convert(str(corpus), tmp_path / name, ConvertOptions(target))
        convert(str(tmp_path / name), tmp_path / "again.jsonl", ConvertOptions(overwrite=True))
        for item in read_manifest(tmp_path / "again.jsonl"):
            assert task_columns(item) == task_columns(expected[item.id]) != {}
            assert item.extra == {}


@pytest.mark.parametrize("channels", [1, 2])
def test_samples_above_full_scale_stay(tmp_path: Path, channels: int) -> None:
    wave = np.linspace(-2, 2, RATE * channels, dtype=np.float32).reshape(RATE, channels)
    soundfile.write(tmp_path / "loud.wav", wave, RATE, subtype="FLOAT")
    audio = encode_clip(Utterance("a", str(tmp_path / "loud.wav"), 1.0, ""))
    samples, rate = soundfile.read(io.BytesIO(audio.data), dtype="float32", always_2d=True)
    assert (audio.suffix, audio.exact, rate) == (".wav", True, RATE) and np.array_equal(samples, wave)


def test_a_complete_uncompressed_file_keeps_its_channels(tmp_path: Path) -> None:
    wave = np.random.default_rng(0).integers(-9000, 9000, (RATE, 2)).astype(np.int16)
    soundfile.write(tmp_path / "two.wav", wave, RATE)
    audio = encode_clip(Utterance("a", str(tmp_path / "two.wav"), 1.0, ""))
    assert audio.suffix == ".flac" and np.array_equal(soundfile.read(io.BytesIO(audio.data), dtype="int16")[0], wave)


def test_the_suffix_of_a_signed_url() -> None:
    assert audio_suffix("https://host/a/Clip.MP3?X-Amz-Signature=a.b/c") == ".mp3"
    assert audio_suffix("a.tar::b.Flac?bytes=0-9") == ".flac" and audio_suffix("https://host/a?id=b.wav") == ".audio"


def test_lhotse_and_parquet_give_the_same_clips_again(corpus: Path, tmp_path: Path) -> None:
    expected = clips(corpus, tmp_path)
    for target, name in (("lhotse", "cuts.jsonl.gz"), ("hf", "folder")):
        convert(str(corpus), tmp_path / name, ConvertOptions(target))
        convert(str(tmp_path / name), tmp_path / "again.jsonl", ConvertOptions(overwrite=True))
        items = read_manifest(tmp_path / "again.jsonl")
        assert [item.id for item in items] == list(expected)
        for item in items:
            assert (item.text, item.keywords) == (expected[item.id].text, expected[item.id].keywords)
            assert_same_audio(load_utterance(item), expected[item.id])


def test_a_folder_of_sources_is_never_written(corpus: Path, finetune: Command, tmp_path: Path) -> None:
    first = tmp_path / "files"
    convert(str(corpus), tmp_path / "first.jsonl", ConvertOptions(audio=first))
    convert(str(corpus), tmp_path / "shards", ConvertOptions("shards"))
    before = {path: path.read_bytes() for folder in (first, tmp_path / "shards") for path in folder.iterdir()}
    rows = (tmp_path / "first.jsonl").read_text().splitlines()
    (tmp_path / "reversed.jsonl").write_text("\n".join(rows[::-1]))
    for arguments, message in (
        ((tmp_path / "reversed.jsonl", tmp_path / "b.jsonl", "--audio", first), "files already exists"),
        (
            (tmp_path / "reversed.jsonl", tmp_path / "b.jsonl", "--audio", first, "--overwrite"),
            "the corpus has audio here",
        ),
        ((tmp_path / "shards", tmp_path / "shards", "--to", "shards", "--overwrite"), "this is the corpus itself"),
        (
            (tmp_path / "shards" / "manifest.jsonl", tmp_path / "shards", "--to", "hf", "--overwrite"),
            "the corpus has audio here",
        ),
        ((corpus, corpus, "--overwrite"), "this is the corpus itself"),
    ):
        result = finetune("convert", *arguments)
        assert result.code == 1 and message in result.err
    assert {path: path.read_bytes() for path in before} == before


def test_shards_of_an_earlier_call_are_replaced(corpus: Path, tmp_path: Path) -> None:
    convert(str(corpus), tmp_path / "shards", ConvertOptions("shards", shard_bytes=1))
    assert len(list((tmp_path / "shards").glob("*.tar"))) == len(ROWS)
    convert(str(corpus), tmp_path / "shards", ConvertOptions("shards", overwrite=True))
    assert {path.name for path in (tmp_path / "shards").iterdir()} == {
        *("manifest.jsonl", "shard-000000.tar", "shard-000000.tar.index")
    }


def test_a_missing_shard_is_a_fault_of_its_rows(corpus: Path, finetune: Command, tmp_path: Path) -> None:
    convert(str(corpus), tmp_path / "shards", ConvertOptions("shards", shard_bytes=1))
    for number in (0, 3):
        (tmp_path / "shards" / f"shard-00000{number}.tar").unlink()
        result = finetune("convert", tmp_path / "shards", tmp_path / "again.jsonl", "--overwrite")
        assert "missing audio" in result.out
    assert len(read_manifest(tmp_path / "again.jsonl")) == len(ROWS) - 2


def test_a_failed_writer_leaves_no_shards(tmp_path: Path, corpus: Path) -> None:
    def failing() -> Iterator[tuple[Utterance, ClipAudio]]:
        yield from encoded(clips(corpus, tmp_path).values(), "flac")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write_tar_shards(tmp_path / "shards", failing(), 1)
    assert not list((tmp_path / "shards").iterdir())


def test_parquet_files_have_the_size(corpus: Path, tmp_path: Path) -> None:
    result = convert(str(corpus), tmp_path / "hf", ConvertOptions("hf", shard_bytes=1))
    assert [path.name for path in result.files] == [f"train-0000{n}-of-00005.parquet" for n in range(5)]
    (tmp_path / "hf" / "data" / "train-clean-00000-of-00001.parquet").touch()  # another split
    convert(str(corpus), tmp_path / "hf", ConvertOptions("hf", overwrite=True))
    names = {path.name for path in (tmp_path / "hf" / "data").iterdir()}
    assert names == {"train-00000-of-00001.parquet", "train-clean-00000-of-00001.parquet"}
