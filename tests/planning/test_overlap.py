"""Leaks that rows state are those that `find_leaks` finds with all clips in memory."""

import random
from pathlib import Path

import pytest
from command import noise

from finetune.core.data_config import DataSection
from finetune.data.leaks import find_leaks
from finetune.data.manifest import Utterance
from finetune.data.row import Row
from finetune.planning.overlap import LeakFinder, coarse_key, refused_audio

DATA = DataSection(test=["x"])
WORDS = ["the", "café", "Don't", "東京", "go.", "NOW", "«a»", "ten"]


def rows_of(seed: int, files: list[str], speakers: list[str]) -> list[Row]:
    rng = random.Random(seed)
    return [
        Row(
            f"rows:{number}",
            {
                "id": f"{seed}-{number}",
                "audio_filepath": rng.choice(files),
                "offset": rng.choice([0.0, 1.0, 2.0, 2.4]),
                "duration": rng.choice([0.5, 1.0, 1.5]),
                "text": " ".join(rng.choices(WORDS, k=rng.choice([2, 4, 5]))),
                "speaker": rng.choice(speakers),
            },
        )
        for number in range(60)
    ]


def clip_of(row: Row) -> Utterance:
    values = row.values
    return Utterance(
        str(values["id"]),
        str(values["audio_filepath"]),
        float(str(values["duration"])),
        str(values["text"]),
        float(str(values["offset"])),
        speaker=str(values["speaker"]),
    )


@pytest.mark.parametrize("seed", range(6))
def test_counts_are_those_of_all_clips(tmp_path: Path, seed: int) -> None:
    files = [str(noise(tmp_path / f"{number}.wav", 0.1)) for number in range(12)]
    train, scored = rows_of(seed, files, ["a", "b", "c", ""]), rows_of(seed + 100, files, ["b", "d", ""])
    finder = LeakFinder("train", {"test": [clip_of(row) for row in scored]}, DATA)
    for row in train:
        finder.add(row)
    found = {leak.kind: leak.clips for leak in finder.counts()}
    expected = dict[str, int]()
    for leak in find_leaks([clip_of(row) for row in train], [clip_of(row) for row in scored]):
        kind = leak.kind.partition(" also in ")[0]
        expected[kind] = expected.get(kind, 0) + 1
    assert found == expected and {"overlapping audio", "speaker"} <= found.keys()


def test_a_whole_file_without_a_duration_is_compared(tmp_path: Path) -> None:
    path = str(noise(tmp_path / "a.wav"))
    finder = LeakFinder("replay", {"test": [Utterance("t", path, 1.0, "hello")]}, DATA)
    finder.add(Row("r:1", {"audio_filepath": path, "text": "other words"}))
    (leak,) = finder.counts()
    assert leak.refused and refused_audio([leak]) == (
        "data.test: the audio of 1 of its utterances is also in data.replay"
    )


@pytest.mark.parametrize(
    "row", [{"audio_filepath": "gone.wav", "duration": 1.0}, {"duration": 45.0}, {"duration": 0.1}]
)
def test_rows_that_prepare_drops_leak_nothing(tmp_path: Path, row: dict[str, object]) -> None:
    path = str(noise(tmp_path / "a.wav"))
    name = row.get("audio_filepath", path)
    finder = LeakFinder("train", {"test": [Utterance("t", str(name), 1.0, "hello")]}, DATA)
    finder.add(Row("r:1", {"audio_filepath": name, "text": "other words", **row}))
    assert finder.counts() == []


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("Go now!", "go  NOW"),
        ("don’t go", "don't go"),
        ("ｇｏ now", "go now"),
        ("東京へ。", "東京 へ"),
        ("CAFÉ", "cafe\u0301"),
    ],
)
def test_texts_that_are_one_sentence_share_a_key(first: str, second: str) -> None:
    assert coarse_key(first) == coarse_key(second) != coarse_key("something else")
