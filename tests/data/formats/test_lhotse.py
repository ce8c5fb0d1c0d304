"""Manifests of Lhotse through check and prepare."""

import copy
import gzip
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from command import Command
from shapes import assert_clip, run_check_and_prepare, write_audio

from finetune.core.errors import DataError
from finetune.data.corpora import read_corpus
from finetune.data.formats.lhotse_cuts import cut_rows
from finetune.data.row import Row

Json = dict[str, Any]


def recording(name: str, seconds: float, *channels: list[int], kind: str = "file", **more: Any) -> Json:
    """A recording with one source, NAME.wav, for each list of channels (NAME-1.wav for the second)."""
    channels = channels or ([0],)
    sources = [
        {"type": kind, "channels": each, "source": f"wav/{name}{f'-{number}' if number else ''}.wav"}
        for number, each in enumerate(channels)
    ]
    ids = sorted(channel for each in channels for channel in each)
    base = {"id": name, "sources": sources, "sampling_rate": 16000, "num_samples": round(16000 * seconds)}
    return {**base, "duration": seconds, "channel_ids": ids, **more}


def supervision(key: str, start: float, duration: float, text: str | None = "words", **more: Any) -> Json:
    item = {"id": key, "recording_id": key.split("-")[0], "start": start, "duration": duration, "channel": 0}
    return item | ({} if text is None else {"text": text}) | more


def cut(
    of: Json, *supervisions: Json, start: float = 0, duration: float | None = None, channel: Any = 0, **more: Any
) -> Json:
    kind = "MultiCut" if isinstance(channel, list) else "MonoCut"
    content = {
        "id": f"{of['id']}-cut",
        "start": start,
        "duration": duration or of["duration"] - start,
        "channel": channel,
    }
    return {**content, "supervisions": list(supervisions), "recording": of, "type": kind, **more}


def write(path: Path, *rows: Json) -> Path:
    text = "".join(json.dumps(row) + "\n" for row in rows)
    text = json.dumps(rows, indent=1) if ".json" in path.suffixes else text
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


def read(path: Path) -> list[Row]:
    return list(read_corpus(str(path), path.parent / "media"))


def fault_of(tmp_path: Path, *cuts: Json) -> str:
    """Kind and detail of the fault of the first cut; the second one is usable."""
    good = cut(recording("a", 5.0), supervision("a-good", 0, 5.0))
    fault = read(write(tmp_path / "cuts.jsonl", *cuts, good))[0].fault
    return "" if fault is None else f"{fault.kind}: {fault.detail}"


@pytest.fixture
def audio(tmp_path: Path) -> Path:
    write_audio(tmp_path / "wav" / "a.wav", 1, 5.0)
    write_audio(tmp_path / "wav" / "b.wav", 2, 5.0, channels=2, rate=8000)
    for number in (0, 1):
        write_audio(tmp_path / "wav" / f"c{f'-{number}' if number else ''}.wav", 30 + number, 5.0)
    return tmp_path


@pytest.fixture
def cuts() -> list[Json]:
    a, b, c = recording("a", 5.0), recording("b", 5.0, [0, 1]), recording("c", 5.0, [0], [1])
    person = {"speaker": "anna", "language": "en", "gender": "F", "custom": {"snr": 3, "f0": {"storage_type": "x"}}}
    return [
        cut(a, supervision("a-1", 0.25, 1.5, "one", **person), supervision("a-2", 1.5, 2.0, "two"), start=1.0),
        cut(a, supervision("a-3", -0.001, 1.002, "three"), start=0.5, duration=1.0),
        cut(
            b,
            supervision("b-1", 1.0, 2.0, "four", channel=1),
            supervision("b-2", 1, 2, "both", channel=[0, 1]),
            channel=[0, 1],
        ),
        cut(b, supervision("b-3", 0, 5.0, "left"), channel=0, custom={"room": "x", "text": "no"}),
        cut(c, supervision("c-1", 0, 5.0, "second file", channel=1), channel=1),
    ]


def assert_clips(clips: dict[str, Any], wav: Path) -> None:
    assert list(clips) == ["a-1", "a-2", "a-3", "b-1", "b-2", "b-3", "c-1"]
    assert_clip(clips["a-1"], wav / "a.wav", "one", 1.25, 2.75)
    assert_clip(clips["a-2"], wav / "a.wav", "two", 2.5, 4.5)
    assert_clip(clips["a-3"], wav / "a.wav", "three", 0.5, 1.5)
    assert_clip(clips["b-1"], wav / "b.wav", "four", 1.0, 3.0, channel=1)
    assert_clip(clips["b-2"], wav / "b.wav", "both", 1.0, 3.0)
    assert_clip(clips["b-3"], wav / "b.wav", "left", channel=0)
    assert_clip(clips["c-1"], wav / "c-1.wav", "second file")


@pytest.mark.parametrize("name", ["cuts.jsonl.gz", "any_name.jsonl", "cuts.json", "cuts_train.json.gz"])
def test_cuts(finetune: Command, nano: Path, audio: Path, cuts: list[Json], name: str) -> None:
    result = run_check_and_prepare(finetune, audio, write(audio / name, *cuts), nano)
    assert result.check.code == 0 and "7 rows" in result.check.out and not result.dropped
    assert_clips(result.clips, audio / "wav")
    first, other = result.clips["a-1"], result.clips["b-3"]
    assert (first.speaker, first.language) == ("anna", "en")
    assert first.extra == {"gender": "F", "snr": 3, "recording": "a"}
    assert other.extra == {"room": "x", "recording": "b"} and other.channel == 0


def test_recordings_and_supervisions(finetune: Command, nano: Path, audio: Path) -> None:
    recordings = [recording("b", 5.0, [0, 1]), recording("unused", 5.0), recording("a", 5.0)]
    supervisions = [
        supervision("a-1", 1.0, 2.0, "one", speaker="anna"),
        supervision("b-1", 0.5, 2.0, "right", channel=1),
        supervision("b-2", 0, 5.0, "both", channel=[0, 1]),
        supervision("x-1", 0, 5.0, "lost"),
    ]
    write(audio / "corpus_recordings_train.jsonl.gz", *recordings)
    path = write(audio / "corpus_supervisions_train.jsonl.gz", *supervisions)
    result = run_check_and_prepare(finetune, audio, path, nano)
    assert_clip(result.clips["a-1"], audio / "wav" / "a.wav", "one", 1.0, 3.0)
    assert_clip(result.clips["b-1"], audio / "wav" / "b.wav", "right", 0.5, 2.5, channel=1)
    assert_clip(result.clips["b-2"], audio / "wav" / "b.wav", "both")
    lost = {"kind": "missing audio", "id": "x-1", "where": f"{path}:4"}
    detail = "corpus_recordings_train.jsonl.gz has no recording with the id 'x'"
    assert result.dropped == [lost | {"detail": detail}]
    for name in (audio, audio / "corpus_recordings_train.jsonl.gz"):
        assert [row.values for row in read(name)] == [row.values for row in read(path)]


def test_a_manifest_with_the_columns_of_a_supervision_is_read_as_before(audio: Path) -> None:
    item = {
        "id": "x",
        "audio_filepath": "wav/a.wav",
        "recording_id": "r",
        "start": 1.0,
        "duration": 2.0,
        "text": "words",
    }
    rows = read(write(audio / "m.jsonl", {**item, "type": "LongCut"}))
    assert [(row.values["id"], row.values["offset"], row.values["recording_id"]) for row in rows] == [("x", 1.0, "r")]


def test_a_channel_is_counted_in_its_file(audio: Path) -> None:
    several = recording("c", 5.0, [3], [5, 7])
    path = write(audio / "cuts.jsonl", *(cut(several, supervision("c-1", 0, 5.0), channel=n) for n in (3, 5, 7)))
    found = [(str(row.values["audio_filepath"])[-7:], row.values.get("channel")) for row in read(path)]
    assert found == [("v/c.wav", None), ("c-1.wav", 0), ("c-1.wav", 1)]


def test_the_path_of_a_file_is_not_the_name_of_a_recording(audio: Path) -> None:
    of = recording("a", 5.0) | {"id": "wav/a.wav"}
    named = supervision("a-2", 0, 5.0, custom={"recording": "meeting"})
    rows = read(write(audio / "cuts.jsonl", cut(of, supervision("a-1", 0, 5.0), named)))
    assert [row.values.get("recording") for row in rows] == [None, "meeting"]


def test_paths_start_at_the_folder_of_the_recipe_of_lhotse(audio: Path, cuts: list[Json]) -> None:
    (audio / "data" / "manifests").mkdir(parents=True)
    rows = read(write(audio / "data" / "manifests" / "cuts_train.jsonl.gz", *cuts))
    assert {row.values["audio_filepath"] for row in rows} == {f"{audio}/wav/{name}.wav" for name in ("a", "b", "c-1")}


def test_what_is_not_a_part_of_one_file_is_a_fault(audio: Path) -> None:
    a, item = recording("a", 5.0), supervision("a-1", 0, 5.0)
    both = {**item, "channel": [0, 1]}
    command, memory = (recording("a", 5.0, kind=kind) for kind in ("command", "memory"))
    mono, b, c = cut(a, item), recording("b", 5.0, [0, 1]), recording("c", 5.0, [0], [1])
    three = recording("b", 5.0, [0, 1, 2])
    speed, volume = {"name": "Speed", "kwargs": {"factor": 1.1}}, {"name": "Volume"}
    cases = [
        ({"id": "m", "tracks": [{"cut": mono}], "type": "MixedCut"}, "unreadable audio: a MixedCut mixes"),
        ({"id": "p", "duration": 2.0, "type": "PaddingCut"}, "unreadable audio: a PaddingCut has no speech"),
        (cut(a), "empty transcript: the cut has no supervision"),
        (cut(a, supervision("a-1", 0, 5.0, None)), "empty transcript: the supervision has no text"),
        ({**mono, "recording": None}, "missing audio: the cut has no recording; features alone"),
        (cut({**a, "transforms": [speed, volume]}, item), "unreadable audio: the recording has the transforms Speed"),
        (cut(command, item), "unreadable audio: a source of type 'command' ('wav/a.wav'): commands"),
        (cut(memory, item), "unreadable audio: a source of type 'memory' "),
        (cut(a, item, channel=3), "invalid channel: the recording has no channel 3; it has 0"),
        (cut(c, both, channel=[0, 1]), "invalid channel: the recording has no one file with"),
        (cut(three, both, channel=[0, 1]), "invalid channel: channels 0 and 1 of 3"),
        (cut(a, supervision("a-1", -0.5, 2.0), start=1.0), "contradictory segment: the supervision lies from -0.5"),
        (cut(a, supervision("a-1", 0.5, 4.6)), "contradictory segment: the supervision lies from 0.5 to 5.1 s"),
        (cut(a, supervision("a-1", 0, 0)), "invalid duration"),
        (cut(a, supervision("a-1", 5.005, 0.01)), "invalid duration"),
        (cut(a, {**item, "start": "0"}), "invalid offset"),
    ]  # fmt: skip
    for content, expected in cases:
        assert fault_of(audio, content).startswith(expected), content
    assert fault_of(audio, cut(b, both, channel=[0, 1])) == ""


def test_a_fault_of_a_cut_is_reported_by_prepare(finetune: Command, nano: Path, audio: Path, cuts: list[Json]) -> None:
    mixed = {"id": "mixed", "tracks": [{"cut": cuts[0], "offset": 0.0}], "type": "MixedCut"}
    path = write(audio / "cuts.jsonl", mixed, cuts[3])
    result = run_check_and_prepare(finetune, audio, path, nano)
    assert list(result.clips) == ["b-3"]
    assert [(row["id"], row["where"]) for row in result.dropped] == [("mixed", f"{path}:1")]


def test_incomplete_manifests_name_what_is_missing(audio: Path, cuts: list[Json]) -> None:
    path = write(audio / "supervisions_train.jsonl.gz", supervision("a-1", 0, 1))
    with pytest.raises(
        DataError, match=r"recordings_train\.jsonl\.gz is missing; supervisions are read with the record"
    ):
        read(path)
    path.rename(audio / "old")
    path = write(audio / "recordings_train.jsonl", recording("a", 5.0))
    with pytest.raises(DataError, match=r"supervisions_train\.jsonl is missing; recordings are read with the superv"):
        read(audio)
    for split in ("train", "dev"):
        write(audio / f"cuts_{split}.jsonl.gz", *cuts)
    with pytest.raises(
        DataError, match=r"has the manifests cuts_dev\.jsonl\.gz, cuts_train\.jsonl\.gz; give one of them"
    ):
        read(audio)


def test_a_truncated_and_a_damaged_manifest(audio: Path, cuts: list[Json]) -> None:
    path = write(audio / "cuts.jsonl.gz", *cuts)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(DataError, match=r"cuts\.jsonl\.gz: damaged or truncated after line \d"):
        read(path)
    path = write(audio / "cuts.jsonl", *cuts)
    path.write_text(path.read_text() + "{\n")
    with pytest.raises(DataError, match=r"cuts\.jsonl:6: not JSON"):
        read(path)


def test_pairs_beside_manifests_are_still_a_folder_of_audio(audio: Path, cuts: list[Json]) -> None:
    write(audio / "cuts.jsonl.gz", *cuts)
    (audio / "wav" / "a.txt").write_text("right")
    assert "right" in [row.values["text"] for row in read(audio)]


JUNK = [None, 1, -1, 2.5, "x", [], {}, [[]], [{}], [None], {"a": {}}, math.nan, math.inf, True, [0, 1], "0", 10**400]


def paths(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The keys that lead to each value inside a value."""
    for key in value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ():
        yield (*path, key)
        yield from paths(value[key], (*path, key))


def replaced(value: Any, path: tuple[Any, ...], new: object) -> Any:
    value = copy.copy(value)
    value[path[0]] = replaced(value[path[0]], path[1:], new) if len(path) > 1 else new
    return value


def test_any_value_of_any_key_gives_rows(cuts: list[Json]) -> None:
    speed = {"transforms": [{"name": "Speed", "kwargs": {"factor": 1.1}}]}
    contents = [*cuts, cut(recording("a", 5.0) | speed, supervision("a-1", 0, 5.0))]
    for content in contents:
        for path in paths(content):
            for junk in JUNK:
                for row in cut_rows(replaced(content, path, junk), "where"):
                    start, length = row.values.get("offset", 0.0), row.values.get("duration", 1.0)
                    assert row.fault or (isinstance(start, float) and isinstance(length, float) and length > 0)
                    assert row.fault or (start >= 0 and length <= 5 and row.values["audio_filepath"])


@pytest.mark.parametrize(("seconds", "warned"), [(1, True), (1.5, False)])
def test_cuts_of_whole_seconds_are_a_warning(
    audio: Path, seconds: float, warned: bool, caplog: pytest.LogCaptureFixture
) -> None:
    items = [supervision(f"a-{start}", start, seconds if start == 2 else 1) for start in range(3)]
    read(write(audio / "cuts.jsonl", cut(recording("a", 5.0), *items)))
    assert caplog.text.count("the times of all 3 segments are whole seconds") == warned


def test_cuts_of_whole_recordings_are_no_segments(audio: Path, caplog: pytest.LogCaptureFixture) -> None:
    read(write(audio / "cuts.jsonl", *(cut(recording("a", 5.0), supervision(f"a-{n}", 0, 5.0)) for n in range(3))))
    assert "whole seconds" not in caplog.text
