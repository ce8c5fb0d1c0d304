"""The first pass over a corpus: decisions depend on all rows, wherever they stand, and memory not on their number."""

import json
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from finetune.core.errors import DataError
from finetune.data.audio_paths import is_file
from finetune.data.conversion import to_manifest_keys
from finetune.data.corpora import read_corpus
from finetune.data.corpus import Corpus, joined
from finetune.data.raw_rows import BLOCK_ROWS
from finetune.data.row import Row

PLAIN = {"path": "a.wav", "sentence": "words"}
LATE = [  # a row that changes what the columns of earlier rows mean
    {"audio_filepath": "b.wav"},
    {"text": "other"},
    {"channels": [1]},
    {"chan_no": 1},
    {"start": 1.5, "end": 2.5},
    {"segment": {"start": 0.5, "stop": 1.0}},
    {"duration_ms": 1500},
    {"speech_start": 0.5, "speech_end": 1.25},
    {"keywords": "a, b"},
    {"manifest_version": 2, "audio_filepath": "b.wav", "text": "x", "offset": 0.0, "duration": 1.0},
]


def outcome(rows: list[dict[str, Any]], folder: Path) -> object:
    """The converted rows in order of their number, or the error."""
    given_rows = [Row(f"m:{values['number']}", values) for values in rows]
    try:
        corpus = to_manifest_keys(given_rows, "m", folder, audio_required=False)
    except DataError as error:
        return str(error)
    check_facts(corpus)
    return sorted((row.where, sorted(row.values.items(), key=str), row.fault) for row in corpus)


def check_facts(corpus: Corpus) -> None:
    """The counts of the first pass are those of the rows."""
    faults = [number for number, row in enumerate(corpus) if row.fault]
    facts = corpus.facts
    assert facts.num_missing == sum(not is_file(str(row.values["audio_filepath"])) for row in corpus)
    assert (facts.num_faults, facts.first_fault) == (len(faults), faults[0] if faults else 0)
    assert facts.has_keywords == any(row.values.get("keywords") for row in corpus)


@pytest.mark.parametrize("late", LATE, ids=lambda late: next(iter(late)))
def test_a_column_of_a_late_row_counts_as_one_of_the_first(late: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "a.wav").touch()
    rows = [PLAIN | {"number": f"{number:04}", "n": 7} for number in range(BLOCK_ROWS + 3)]
    last = {"number": "9999", **PLAIN, "n": 7, **late}
    assert outcome([*rows, last], tmp_path) == outcome([last, *rows], tmp_path)


def test_a_key_inside_an_object_of_a_late_row_is_found(tmp_path: Path) -> None:
    rows = [Row(f"m:{n}", {**PLAIN, "segment": {"note": "x"}}) for n in range(3)]
    late = Row("m:3", {**PLAIN, "segment": {"start": 1.5, "end": 2.5}})
    corpus = to_manifest_keys([*rows, late], "m", tmp_path, audio_required=False)
    assert (corpus[3].values["offset"], corpus[3].values["duration"]) == (1.5, 1.0)


def test_spans_are_compared_within_each_file(tmp_path: Path) -> None:
    spans = {"a.wav": [(0.0, 1.0), (1.0, 2.0)], "b.wav": [(0.0, 1.5), (1.5, 3.0)]}
    rows = [
        Row(f"m:{name}", {"audio_filepath": name, "text": "x", "x": first, "y": last})
        for name, parts in spans.items()
        for first, last in parts
    ]
    with pytest.raises(DataError, match="possibly the times of a segment: in each file"):
        to_manifest_keys(rows, "m", tmp_path, audio_required=False)


CELL = st.sampled_from(["", None, 0.0, 0.5, 1, 1.5, "00:00:02.5", "x", -1.0, "left", [0], float("nan")])
NAMES = ("start", "end", "duration", "offset", "from", "to", "channel", "snr", "begin_ms", "segment")


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), names=st.lists(st.sampled_from(NAMES), unique=True, max_size=4), count=st.integers(1, 6))
def test_the_order_of_the_rows_changes_no_decision(
    data: st.DataObject, names: list[str], count: int, tmp_path: Path
) -> None:
    (tmp_path / "a.wav").touch()
    rows = [
        {"number": f"{number}", "audio_filepath": data.draw(st.sampled_from(["a.wav", "b.wav"])), "text": "x"}
        | {name: data.draw(CELL) for name in names}
        for number in range(count)
    ]
    first, other = outcome(rows, tmp_path), outcome(data.draw(st.permutations(rows)), tmp_path)
    if isinstance(first, str) and isinstance(other, str):  # the message names the first row that has a value
        first, other = first.partition("column")[2].split("(")[0], other.partition("column")[2].split("(")[0]
    assert first == other


def test_joined_corpora_have_the_rows_and_counts_of_all(tmp_path: Path) -> None:
    (tmp_path / "a.wav").touch()
    lengths = (BLOCK_ROWS - 1, 2, BLOCK_ROWS + 5)
    parts = []
    for part, length in enumerate(lengths):
        rows = [
            Row(f"{part}:{n}", {**PLAIN, "start": 1.0, "end": 0.5 if part and n == 1 else 2.0}) for n in range(length)
        ]
        parts.append(to_manifest_keys(rows, "m", tmp_path))
    corpus = joined(parts)
    assert [*corpus] == [row for part in parts for row in part] and len(corpus) == sum(lengths)
    assert [len(corpus.block(number)) for number in range(corpus.num_blocks)] == [BLOCK_ROWS, BLOCK_ROWS, 6]
    check_facts(corpus)
    assert (corpus.facts.num_faults, corpus.facts.first_fault) == (2, BLOCK_ROWS)


def test_the_number_of_a_candidate_leads_to_its_file(tmp_path: Path) -> None:
    for name in ("clips/a.wav", "wavs/b é.flac", "c.wav"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    names = ["a.wav", " a.wav ", "b e\u0301", "x\\..\\c.wav", "gone.wav", "https://h/a.wav", "", None, 5]
    (tmp_path / "x").mkdir()
    corpus = to_manifest_keys([Row("m:1", {"audio_filepath": name, "text": "x"}) for name in names], "m", tmp_path)
    expected = ["clips/a.wav", "clips/a.wav", "wavs/b é.flac", "c.wav", "gone.wav"]
    found = [row.values["audio_filepath"] for row in corpus]
    assert found[:5] == [str(tmp_path / name) for name in expected] and found[5:] == ["https://h/a.wav", "", None, None]
    assert corpus.facts.num_missing == 4


def peak_bytes(folder: Path, count: int, files: int, **columns: object) -> int:
    """The largest memory while a corpus is read twice."""
    path = folder / "m.jsonl"
    with open(path, "w") as file:
        for number in range(count):
            row = {
                "audio_filepath": "a.wav" if number % 2 else f"{number}.wav",
                "text": f"words of row {number}",
                **columns,
            }
            file.write(
                json.dumps({name: value(number) if callable(value) else value for name, value in row.items()}) + "\n"
            )
    tracemalloc.start()
    corpus = read_corpus(str(path), folder, audio_required=False)
    assert sum(1 for _ in corpus) == count
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak


PLAIN_COLUMNS = {"duration": 2.5, "speaker": "s"}
SEGMENTS = {"start": lambda number: number % 7 + 0.5, "end": lambda number: number % 7 + 0.9}
OPEN_ENDS = {"start": lambda number: float(number % 7), "end": lambda number: None if number % 9 else 9.5}


@pytest.mark.parametrize("columns", [PLAIN_COLUMNS, OPEN_ENDS], ids=["plain", "open ends"])
def test_rows_are_not_kept(columns: dict[str, Any], tmp_path: Path) -> None:
    count = 12 * BLOCK_ROWS
    assert peak_bytes(tmp_path, count, 50, **columns) < 450 * count  # a list of rows has 1,000 bytes a row and more


@pytest.mark.slow
@pytest.mark.parametrize("columns", [PLAIN_COLUMNS, SEGMENTS, OPEN_ENDS], ids=["plain", "segments", "open ends"])
def test_memory_of_a_large_corpus(columns: dict[str, Any], tmp_path: Path) -> None:
    assert peak_bytes(tmp_path, 300_000, 100_000, **columns) < 90 * 300_000


@pytest.mark.parametrize(
    ("places", "warned"),
    [
        ([("a", "agent"), ("b", "Customer"), ("c", ""), ("d", "agent")], True),
        ([("a", "SPEAKER_00"), ("b", "SPEAKER_01")], True),
        ([("a", "1"), ("a", 2), ("b", "1")], True),
        ([("a", "1"), ("b", "2"), ("c", "1")], False),  # clips, so the numbers can be those of a corpus
        ([("a", "agent"), ("a", "customer")], False),  # one recording
        ([("a", "agent"), ("b", "Ann")], False),
        ([("a", "a-agent"), ("b", "b-agent")], False),
        ([("a", ""), ("b", None)], False),
    ],
)
@pytest.mark.parametrize("exact", [False, True])
def test_speakers_of_each_recording_are_named(
    places: list[tuple[str, object]], warned: bool, exact: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    names = ("audio_filepath", "speaker") if exact else ("path", "speaker_id")
    rows = [Row("m:1", {names[0]: f"{file}.wav", names[1]: name, "text": "x"}) for file, name in places]
    to_manifest_keys(rows, "m.csv", tmp_path, audio_required=False, exact=exact)
    assert ("m.csv: the speakers are" in caplog.text) == warned
