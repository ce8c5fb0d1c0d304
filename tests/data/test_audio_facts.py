"""The cache of facts about audio: the same results as without it, by content, and never a reason to stop."""

import json
import os
import shutil
import sqlite3
import threading
from pathlib import Path

import numpy as np
import pytest
import soundfile

import finetune.data.audio_facts as audio_facts
from finetune.core.config import Recipe
from finetune.core.errors import DataError
from finetune.core.run_dir import RunDir
from finetune.data.audio import AudioInfo, inspect_audio
from finetune.data.audio_facts import CachedInspect, cache_file, decoder_sources, decoder_version, prune_cache
from finetune.data.byte_range import ByteRange
from finetune.data.prepare import prepare


class Counted:
    """`inspect_audio` that records the names of the files."""

    def __init__(self) -> None:
        self.names = list[str]()

    def __call__(self, path: str, *args: float | None) -> AudioInfo:
        self.names.append(Path(path).name)
        return inspect_audio(path, *args)  # type: ignore[arg-type]

    def taken(self) -> list[str]:
        names, self.names = self.names, []
        return names


@pytest.fixture
def decode() -> Counted:
    return Counted()


@pytest.fixture
def cached(tmp_path: Path, decode: Counted) -> CachedInspect:
    return CachedInspect(tmp_path / "facts.sqlite", decode)


def reopened(cached: CachedInspect) -> CachedInspect:
    """The cache as a new process sees it."""
    cached.flush()
    audio_facts._local.__dict__.clear()
    return cached


def noise(path: Path, seconds: float = 1.0, seed: int = 0, channels: int = 1) -> str:
    samples = np.random.default_rng(seed).uniform(-0.3, 0.3, (int(16_000 * seconds), channels))
    soundfile.write(path, samples, 16_000)
    os.utime(path, ns=(10**18, 10**18))  # older than SETTLED
    return str(path)


def test_the_same_content_is_decoded_once(tmp_path: Path, cached: CachedInspect, decode: Counted) -> None:
    """Under another name too; another segment, channel or content is decoded."""
    path = noise(tmp_path / "a.wav", channels=2)
    segments = [(0.0, None, None), (0.25, 0.5, None), (0.25, 0.5, 1)]
    expected = [inspect_audio(path, *segment, 30.0) for segment in segments]
    assert [cached(path, *segment, 30.0) for segment in segments] == expected
    assert decode.taken() == ["a.wav"] * 3
    shutil.copy(path, tmp_path / "b.wav")
    for name in ("a.wav", "b.wav"):
        again = reopened(cached)
        assert [again(str(tmp_path / name), *segment, 60.0) for segment in segments] == expected
    assert decode.taken() == []
    os.replace(noise(tmp_path / "c.wav", seed=1, channels=2), path)  # another file of the same name, size and time
    assert reopened(cached)(path, 0.0, None, None, 30.0) != expected[0]
    assert decode.taken() == ["a.wav"]


def test_the_limit_of_the_duration_counts(tmp_path: Path, cached: CachedInspect, decode: Counted) -> None:
    path = noise(tmp_path / "a.wav", 2.0)
    for limit, decodes in ((1.0, 1), (2.0, 1), (1.0, 0), (5.0, 1), (6.0, 0), (2.0, 0), (1.5, 1)):
        assert cached(path, 0.0, None, None, limit) == inspect_audio(path, 0.0, None, None, limit)
        assert len(decode.taken()) == decodes, limit


def test_errors_of_the_content_are_remembered(tmp_path: Path, cached: CachedInspect, decode: Counted) -> None:
    path, gone = noise(tmp_path / "a.wav"), str(tmp_path / "gone.wav")
    shutil.copy(path, tmp_path / "b.wav")
    for name in ("a.wav", "b.wav", "a.wav"):
        with pytest.raises(DataError) as raised:
            cached(str(tmp_path / name), 5.0, 1.0, None, 30.0)
        assert str(raised.value).startswith(f"{tmp_path / name}: offset 5.000 s is outside")
    assert decode.taken() == ["a.wav"]
    for _ in range(2):
        with pytest.raises(DataError, match="no such file"):
            cached(gone, 0.0, None, None, 30.0)
    assert len(decode.taken()) == 2


def test_members_of_an_archive_are_known_by_their_bytes(tmp_path: Path) -> None:
    content = Path(noise(tmp_path / "a.wav")).read_bytes()
    (tmp_path / "x.tar").write_bytes(b"head" + content + content + b"other")
    places = [(4, len(content)), (4 + len(content), len(content)), (5, len(content))]
    names = [str(ByteRange(str(tmp_path / "x.tar"), "m.wav", start, length)) for start, length in places]
    info, decoded = AudioInfo(1.0, 1, False, "d"), list[str]()

    def decode(path: str, *_: object) -> AudioInfo:
        decoded.append(path)
        return info

    cached = CachedInspect(tmp_path / "facts.sqlite", decode)
    for name in (str(tmp_path / "a.wav"), *names, *names):
        assert cached(name, 0.0, None, None, 30.0) == info
    assert decoded == [str(tmp_path / "a.wav"), names[2]]
    assert cached("https://host/a.wav", 0.0, None, None, 30.0) == info and len(decoded) == 3


@pytest.mark.parametrize("damage", [b"", b"not a database" * 100, None])
def test_a_damaged_cache_is_made_again(
    tmp_path: Path, cached: CachedInspect, decode: Counted, damage: bytes | None, caplog: pytest.LogCaptureFixture
) -> None:
    path = noise(tmp_path / "a.wav")
    cached(path, 0.0, None, None, 30.0)
    cached.flush()
    decode.taken()
    if damage is None:
        content = bytearray(cached.path.read_bytes())
        content[4096:] = bytes(len(content) - 4096)
        damage = bytes(content)
    reopened(cached).path.write_bytes(damage)
    for decodes in (1, 0):
        assert reopened(cached)(path, 0.0, None, None, 30.0) == inspect_audio(path)
        assert len(decode.taken()) == decodes
    assert ("damaged, so it is made again" in caplog.text) == bool(damage)


def test_a_cache_that_cannot_be_used_is_turned_off(
    tmp_path: Path, decode: Counted, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, cached = noise(tmp_path / "a.wav"), CachedInspect(tmp_path / "none" / "facts.sqlite", decode)
    for _ in range(3):
        assert cached(path, 0.0, None, None, 30.0) == inspect_audio(path)
        cached.flush()
    assert len(decode.names) == 3 and caplog.text.count("not used, so audio is decoded again") == 1
    for value, place in (("off", None), ("0", None), (str(tmp_path / "x"), tmp_path / "x")):
        monkeypatch.setenv("FINETUNE_CACHE", value)
        assert cache_file() == (place / "audio_facts.sqlite" if place else None)
    monkeypatch.delenv("FINETUNE_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "y"))
    assert cache_file() == tmp_path / "y" / "finetune" / "audio_facts.sqlite"
    (tmp_path / "file").touch()
    monkeypatch.setenv("FINETUNE_CACHE", str(tmp_path / "file" / "x"))
    assert cache_file() is None


def test_several_threads_write(tmp_path: Path, cached: CachedInspect, decode: Counted) -> None:
    paths = [noise(tmp_path / f"{number}.wav", 0.1, number) for number in range(8)]

    def work() -> None:
        for path in paths:
            cached(path, 0.0, None, None, 30.0)
            cached.flush()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    decode.taken()
    work()
    assert decode.taken() == []


def test_old_entries_go_first(tmp_path: Path, cached: CachedInspect, decode: Counted) -> None:
    paths = [noise(tmp_path / f"{number}.wav", 0.1, number) for number in range(40)]
    for path in paths:
        cached(path, 0.0, None, None, 30.0)
    reopened(cached)
    with sqlite3.connect(cached.path) as database:
        database.execute("UPDATE facts SET used = 1")
        database.execute("UPDATE facts SET value = CAST(value || printf('%4000s', '') AS BLOB)")  # spaces after JSON
    for path in paths[:5]:  # read, so the day is today
        cached(path, 0.0, None, None, 30.0)
    cached.flush()
    prune_cache(cached.path, max_bytes=10**9)
    assert count(cached.path) == 40
    prune_cache(cached.path, max_bytes=60_000)
    assert 5 <= count(cached.path) < 20
    decode.taken()
    for path in paths[:5]:
        reopened(cached)(path, 0.0, None, None, 30.0)
    assert decode.taken() == []


def count(path: Path) -> int:
    with sqlite3.connect(path) as database:
        return int(database.execute("SELECT count(*) FROM facts").fetchone()[0])


def test_the_code_that_decodes_is_part_of_the_key() -> None:
    assert {"audio", "audio_file", "audio_readers", "av_file", "downmix", "mpeg", "ogg", "wav"} <= {*decoder_sources()}
    assert len(decoder_version()) == 32


def test_a_second_recipe_on_the_same_audio_decodes_nothing(
    tmp_path: Path, decode: Counted, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FINETUNE_CACHE", str(tmp_path / "cache"))
    data = dict[str, list[str]]()
    for seed, split in enumerate(("train", "valid", "test")):
        path, table = noise(tmp_path / f"{split}.flac", seed=seed), tmp_path / f"{split}.jsonl"
        table.write_text(json.dumps({"audio_filepath": path, "text": f"{split} words"}))
        data[split] = [str(table)]
    recipe = Recipe.model_validate({"name": "x", "model": {"base": "-"}, "data": data})
    prepare(recipe, RunDir(tmp_path / "first"), inspect=decode)
    assert sorted(decode.taken()) == ["test.flac", "train.flac", "valid.flac"]
    audio_facts._local.__dict__.clear()
    other = recipe.model_copy(update={"data": recipe.data.model_copy(update={"max_duration": 20.0})})
    prepare(other, RunDir(tmp_path / "second"), inspect=decode)
    assert decode.taken() == []
    manifests = [(tmp_path / run / "manifests" / "train.jsonl").read_bytes() for run in ("first", "second")]
    assert manifests[0] == manifests[1]
