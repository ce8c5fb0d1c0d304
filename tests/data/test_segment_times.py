"""Segments: every spelling of their times gives the same clips, or an error that names the column."""

import json
import logging
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from finetune.core.errors import DataError
from finetune.data.audio import load_audio, load_utterance
from finetune.data.audit import Audit, audit
from finetune.data.conversion import to_manifest_keys
from finetune.data.corpora import read_corpus
from finetune.data.row import Row
from finetune.data.time_names import words_of
from finetune.evaluation.utterances import read_utterances

SEGMENTS = [(0.0, 1.77), (2.37, 2.07), (5.04, 2.09), (7.73, 1.80), (10.13, 2.01), (12.74, 1.90)]
Spelling = Callable[[float, float, float], dict[str, object]]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with talk.wav: 15.24 s of noise."""
    noise = np.random.default_rng(0).uniform(-0.3, 0.3, round(15.24 * 16_000))
    soundfile.write(tmp_path / "talk.wav", noise.astype(np.float32), 16_000)
    return tmp_path


def audited(folder: Path, rows: list[dict[str, Any]], name: str = "m.jsonl") -> Audit:
    """The audit of rows about talk.wav, each with a text of its own."""
    path = folder / name
    rows = [{"audio_filepath": "talk.wav", "text": f"segment {n}"} | row for n, row in enumerate(rows)]
    path.write_text("\n".join(map(json.dumps, rows)))
    return audit(
        read_corpus(str(path), folder / "media"),
        min_duration=0.1,
        max_duration=60,
        max_chars_per_second=50,
        special_tokens=(),
        workers=1,
    )


def spelled(spelling: Spelling) -> list[dict[str, object]]:
    return [spelling(start, round(start + length, 3), length) for start, length in SEGMENTS]


def clips(result: Audit) -> list[tuple[float, float]]:
    return [(item.offset, round(item.duration, 3)) for item in result.kept]


def clock(seconds: float, point: str = ".") -> str:
    return f"00:{int(seconds // 60):02}:{seconds % 60:06.3f}".replace(".", point)


@pytest.mark.parametrize(
    "spelling",
    [
        lambda start, end, length: {"offset": start, "duration": length},
        lambda start, end, length: {"start": start, "end": end},
        lambda start, end, length: {"start_time": start, "end_time": end},
        lambda start, end, length: {"startTime": start, "endTime": end},
        lambda start, end, length: {"Start Time (s)": str(start), "End Time (s)": str(end)},
        lambda start, end, length: {"begin": start, "end": end},
        lambda start, end, length: {"begin": start, "duration": length},
        lambda start, end, length: {"offset": start, "end": end},
        lambda start, end, length: {"start": start, "duration": length},
        lambda start, end, length: {"start": start, "length": length},
        lambda start, end, length: {"onset": start, "offset": end},
        lambda start, end, length: {"onset": start, "offset": end, "duration": length},
        lambda start, end, length: {"from": start, "to": end},
        lambda start, end, length: {"start_ms": round(start * 1000), "end_ms": round(end * 1000)},
        lambda start, end, length: {"startMs": round(start * 1000), "durationMs": round(length * 1000)},
        lambda start, end, length: {"offset": start, "duration_ms": round(length * 1000)},
        lambda start, end, length: {"start_sec": start, "end_sec": end},
        lambda start, end, length: {"start_seconds": start, "end_seconds": end},
        lambda start, end, length: {"start_us": round(start * 1e6), "end_us": round(end * 1e6)},
        lambda start, end, length: {"time_start": start, "time_end": end},
        lambda start, end, length: {"segment_start": start, "segment_end": end},
        lambda start, end, length: {"start_offset": start, "end_offset": end},
        lambda start, end, length: {"starttime": start, "endtime": end},
        lambda start, end, length: {"tmin": start, "tmax": end},
        lambda start, end, length: {"segment": {"start": start, "end": end}},
        lambda start, end, length: {"start": clock(start), "end": clock(end)},
        lambda start, end, length: {"start": clock(start, ","), "end": clock(end, ",")},
        lambda start, end, length: {"start": f"0:{start:05.2f}", "end": f"0:{end:05.2f}"},
        lambda start, end, length: {"start": f"{start}".replace(".", ","), "end": f"{end}".replace(".", ",")},
        lambda start, end, length: {"start": f"{start} s", "end": f"{round(end * 1000)}ms"},
        lambda start, end, length: {"Anfang": start, "Ende": end},
        lambda start, end, length: {"Beginn": start, "Dauer": length},
        lambda start, end, length: {"d\u00e9but": start, "fin": end},
        lambda start, end, length: {
            "Begin Time - hh:mm:ss.ms": clock(start),
            "Begin Time - msec": round(start * 1000),
            "Duration - ss.msec": length,
        },
        lambda start, end, length: {"start": start, "end": end, "file_duration": 15.24, "start_frame": 7},
    ],
)
def test_every_spelling_gives_the_same_clips(folder: Path, spelling: Spelling) -> None:
    result = audited(folder, spelled(spelling))
    assert clips(result) == SEGMENTS and not result.dropped and not result.warnings
    assert [item.id for item in result.kept[:2]] == ["talk", "talk@2.370"]


def test_a_corpus_can_mix_spellings(folder: Path) -> None:
    rows: list[dict[str, Any]] = [
        {"duration": 1.77},
        {"offset": 2.37, "duration": 2.07},
        {"begin": "5,04", "duration": 2.09},
        {"start_ms": 7730, "end_ms": 9530},
        {"start": "0:10.13", "end": "0:12.14"},
        {"offset": 12.74, "end": 14.64},
    ]
    assert clips(audited(folder, rows)) == SEGMENTS


def test_a_row_without_an_offset_begins_at_0_in_a_corpus_of_segments(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    rows: list[dict[str, Any]] = [{"duration": 1.77}, {"duration": 2.07, "offset": 2.37}]
    assert clips(audited(folder, rows)) == SEGMENTS[:2]
    assert "m.jsonl: 1 of 2 rows have no start and begin at 0 s" in caplog.text


@pytest.mark.parametrize(
    ("spelling", "message"),
    [
        (lambda start, end, length: {"start_frame": 3, "end_frame": 9}, "'start_frame' and 'end_frame' .*frames"),
        (lambda start, end, length: {"start_sample": 3, "num": 9}, "'start_sample' .*samples"),
        (lambda start, end, length: {"frame_offset": 3, "num_frames": 9}, "'frame_offset' .*frames"),
        (lambda start, end, length: {"end": end}, "'end' .*no column has its start"),
        (lambda start, end, length: {"end": end, "duration": length}, "'end' .*no column has its start"),
        (lambda start, end, length: {"timestamp": [start, end]}, r"'timestamp' \(\[0.0, 1.77\]\): two times"),
        (lambda start, end, length: {"segment": f"{start}-{end}"}, "'segment' .*two times"),
        (lambda start, end, length: {"Timecode": f"{clock(start)} - {clock(end)}"}, "'Timecode' .*two times"),
        (lambda start, end, length: {"timestamp": start}, "'timestamp' .*possibly the start of a segment"),
        (lambda start, end, length: {"time": clock(start)}, "'time' .*possibly the start of a segment"),
        (lambda start, end, length: {"speech_start": start, "speech_end": end}, "'speech_start' and 'speech_end'"),
        (lambda start, end, length: {"start_min": start / 60, "end_min": end / 60}, "'start_min' and 'end_min'"),
        (lambda start, end, length: {"meta": {"start": start, "end": end}}, "'meta.start' and 'meta.end'"),
        (lambda start, end, length: {"lower": start, "upper": end}, "'lower' and 'upper' .*every row starts after"),
        (lambda start, end, length: {"start_time": "2024-05-01 10:00:00"}, "'start_time' .*not a time"),
        (lambda start, end, length: {"start": start, "finish": end}, "'finish' .*possibly the end"),
        (lambda start, end, length: {"start": start}, "'start' .*no column has their ends"),
        (lambda start, end, length: {"start": start, "end": ""}, "'start' .*no column has their ends"),
        (lambda start, end, length: {"start": start, "speech_end": end}, "'speech_end' .*possibly the end"),
        (lambda start, end, length: {"offset": start, "num_samples": int(length * 16000)}, "'num_samples' .*possibly"),
    ],
)
def test_a_column_of_unknown_unit_or_meaning_is_refused(folder: Path, spelling: Spelling, message: str) -> None:
    with pytest.raises(DataError, match=rf"m.jsonl:1: column {message}"):
        audited(folder, spelled(spelling))


def test_a_time_that_is_the_same_for_all_rows_of_a_file_is_no_start(folder: Path) -> None:
    rows: list[dict[str, Any]] = [{"timestamp": 7, "segment": number} for number in (1, 2)]
    assert [clip for clip, _ in clips(audited(folder, rows))] == [0.0, 0.0]


@pytest.mark.parametrize(
    ("times", "message"),
    [
        ({"cue_in": 1.77, "cue_out": 3.84}, "'cue_in' and 'cue_out'"),
        ({"t0": 1.77, "t1": 3.84}, "'t0' and 't1'"),
        ({"line_start": 1.77, "line_end": 3.84}, "'line_start' and 'line_end'"),
        ({"meta": {"segment": {"start": 1.77, "end": 3.84}}}, "'meta.segment.start'"),
        ({"span": "1.77..3.84"}, "'span'"),
        ({"range": "1.77->3.84"}, "'range'"),
        ({"start": 1.77, "out": 3.84}, "'out'"),
        ({"begin": 1.77, "speech_length": 2.07}, "'speech_length'"),
    ],
)
def test_a_single_segment_of_a_file_is_not_the_whole_file(folder: Path, times: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=rf"m.jsonl:1: column {message}"):
        audited(folder, [times])


def test_a_start_without_an_end_reaches_to_the_end_of_the_file(folder: Path) -> None:
    rows = [{"start": 13.24, "sample_rate": 16000}, {"start": 14.24, "sample_rate": 16000}]
    (folder / "other.wav").write_bytes((folder / "talk.wav").read_bytes())
    assert clips(audited(folder, [rows[0], rows[1] | {"audio_filepath": "other.wav"}])) == [(13.24, 2.0), (14.24, 1.0)]


@pytest.mark.parametrize("end", ["stop", "to", "until"])
@pytest.mark.parametrize("wrong", ["?", 1e7])
def test_one_wrong_end_does_not_hide_the_others(folder: Path, end: str, wrong: object) -> None:
    result = audited(folder, [{"start": 0.5, end: 2.0}, {"start": 2.37, end: wrong}, {"start": 5.24, end: 7.33}])
    assert clips(result) == [(0.5, 1.5), (5.24, 2.09)]
    assert [problem.where[-9:] for problem in result.dropped] == ["m.jsonl:2"]


def test_times_beside_the_path_in_an_object(folder: Path) -> None:
    rows = [{"audio_filepath": {"path": "talk.wav", "start": 2.37, "end": 4.44}}]
    assert clips(audited(folder, rows)) == [(2.37, 2.07)]


def test_a_row_of_a_manifest_without_its_offset_is_read_as_any_other(folder: Path) -> None:
    assert clips(audited(folder, [{"manifest_version": 2, "start": 2.37, "end": 4.44}])) == [(2.37, 2.07)]


@pytest.mark.parametrize(
    ("row", "kind", "detail"),
    [
        ({"start": 2, "end": 2}, "contradictory segment", "'end' is 2 s, not after the start at 2 s"),
        ({"start": 2, "end": 1}, "contradictory segment", "'end' is 1 s"),
        ({"start": 2, "end": 4, "duration": 4}, "contradictory segment", "'duration' is 4 s, but 'end' is 4 s"),
        ({"start": 2, "offset": 3, "end": 4}, "contradictory segment", "'start' is 2 s, but 'offset' is 3 s"),
        ({"start": -1, "end": 4}, "invalid offset", "'start' is -1"),
        ({"start": "2:75", "end": 4}, "invalid offset", "'start' is '2:75'"),
        ({"start": 2, "end": "soon"}, "invalid duration", "'end' is 'soon'"),
        ({"start": 9}, "invalid duration", "another one starts at 12 s"),
        ({}, "invalid offset", "no times, but other rows of this file are segments"),
        ({"start": 2370, "end": 4440}, "segment outside the audio", "2370 to 4440 s, but the file has 15.24 s"),
        ({"start": 12, "end": 20}, "segment outside the audio", "12 to 20 s"),
    ],
)
def test_contradictory_times_are_a_fault_of_the_row(folder: Path, row: dict[str, Any], kind: str, detail: str) -> None:
    result = audited(folder, [{"start": 0, "end": 1}, row, {"start": 12, "end": 14}])
    assert [item.offset for item in result.kept] == [0.0, 12.0]
    assert [(problem.kind, problem.where[-9:]) for problem in result.dropped] == [(kind, "m.jsonl:2")]
    assert detail in result.dropped[0].detail


def test_durations_of_whole_files_are_compared(folder: Path) -> None:
    result = audited(folder, [{"duration": 15.24}, {"duration": 15}, {"duration": 15240}, {"duration": 7.62}, {}])
    assert clips(result) == [(0.0, 15.24)] * 3
    assert [problem.kind for problem in result.dropped] == ["wrong duration"] * 2
    assert "stated 15240.0 s, but the file has 15.24 s" in result.dropped[0].detail


def test_other_columns_are_no_times(folder: Path) -> None:
    """Metadata of calls and text; they stay as they are."""
    columns: dict[str, Any] = {"from": "Anna", "to": "+49123", "length": "short", "char_start": 3, "start_date": "May"}
    columns |= {
        "word_start": 4,
        "word_end": 9,
        "in": 3,
        "out": 7,
        "sample_rate": 16000,
        "end_reason": "hangup",
        "num_frames": 243840,
        "words": [{"start": 1, "end": 2}],
    }
    result = audited(folder, [columns])
    assert clips(result) == [(0.0, 15.24)] and result.kept[0].extra == columns


def test_a_clip_that_is_already_cut_is_the_whole_file(folder: Path) -> None:
    """Corpora such as AMI have the times of each clip in its recording."""
    soundfile.write(folder / "cut.wav", load_audio(folder / "talk.wav", 2.0, 3.0), 16_000, "FLOAT")
    result = audited(folder, [{"audio_filepath": "cut.wav", "begin_time": 120.5, "end_time": 123.5}])
    assert clips(result) == [(0.0, 3.0)]
    assert [problem.kind for problem in result.warnings] == ["audio already cut"]


@pytest.mark.parametrize("ending", ["csv", "tsv"])
def test_tables_and_scoring_give_the_same_samples(folder: Path, ending: str) -> None:
    path, delimiter = folder / f"m.{ending}", {"csv": ";", "tsv": "\t"}[ending]
    lines = [["path", "start", "end", "sentence"]]
    lines += [["talk.wav", f"{s:.3f}".replace(".", ","), f"{s + d:.3f}".replace(".", ","), "a"] for s, d in SEGMENTS]
    path.write_text("\n".join(map(delimiter.join, lines)))
    waves = [load_utterance(item) for item in read_utterances(path)]
    expected = [load_audio(folder / "talk.wav", start, length) for start, length in SEGMENTS]
    assert all(np.array_equal(a, b) for a, b in zip(waves, expected, strict=True))


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("startTimeMs", ["start", "time", "ms"]),
        ("STARTTIME", ["start", "time"]),
        ("endms", ["end", "ms"]),
        ("Beginning", ["beginning"]),
        ("durations", ["durations"]),
        ("tstart", ["t", "start"]),
        ("attendance", ["attendance"]),
        ("Durée (s)", ["duree", "s"]),
    ],
)
def test_words_of_a_column_name(name: str, words: list[str]) -> None:
    assert words_of(name) == words


@pytest.mark.parametrize(("end", "warned"), [("00:00:10", True), ("00:00:10.5", False)])
def test_times_in_whole_seconds_are_a_warning(end: str, warned: bool, caplog: pytest.LogCaptureFixture) -> None:
    times = [("00:00:00", "00:00:02"), ("00:00:03", "00:00:06"), ("00:00:07", end)]
    rows = [
        Row(f"a.csv:{n}", {"audio_filepath": "a.wav", "start": a, "end": b, "text": "x"})
        for n, (a, b) in enumerate(times, 2)
    ]
    to_manifest_keys(rows, "a.csv", Path(), audio_required=False)
    assert ("whole seconds" in caplog.text) == warned


@pytest.mark.parametrize(
    ("starts", "refused"),
    [
        (["0", "2,660", "12,345"], True),
        ([" 350", "2.660", "1.234.567"], True),
        (["0", "2660", "12,345"], False),  # 2660 has no separator
        (["0,000", "350,125", "870,250"], False),
        (["12,5", "350,125", "1234,5"], False),
        ([0, 350.125, 870.25], False),  # numbers, not texts
        (["0", "500", "900"], False),
        (["0", "2,660 s", "12,345 s"], False),
    ],
)
@pytest.mark.parametrize("name", ["start_ms", "start", "offset_us"])
def test_separators_of_thousands_in_small_units_are_refused(starts: list[object], refused: bool, name: str) -> None:
    rows = [Row(f"a.csv:{n}", {"audio_filepath": "a.wav", name: a, "duration": "0.5"}) for n, a in enumerate(starts, 2)]
    if refused and name != "start":  # seconds with a decimal comma
        with pytest.raises(
            DataError, match=rf"column '{name}' .*: '[^']+' has separators of thousands, or three decimals"
        ):
            to_manifest_keys(rows, "a.csv", Path(), audio_required=False, text_required=False)
    else:
        to_manifest_keys(rows, "a.csv", Path(), audio_required=False, text_required=False)


def test_separators_of_thousands_in_durations_are_refused() -> None:
    rows = [Row(f"a.csv:{n}", {"path": f"{n}.wav", "duration_ms": value}) for n, value in enumerate(("950", "2,660"))]
    with pytest.raises(DataError, match=r"'duration_ms' \('950'\): '2,660' has separators of thousands"):
        to_manifest_keys(rows, "a.csv", Path(), audio_required=False, text_required=False)


@pytest.mark.parametrize(("unit", "refused"), [(" ms", True), ("MS", True), (" s", False)])
def test_separators_of_thousands_before_a_unit_are_refused(unit: str, refused: bool) -> None:
    ends = [f"{end}{unit}" for end in ("500", "2,660")]
    rows = [Row(f"a.csv:{n}", {"path": f"{n}.wav", "start": 0, "end": end}) for n, end in enumerate(ends)]
    with pytest.raises(DataError, match="'2,660' has separators") if refused else nullcontext():
        to_manifest_keys(rows, "a.csv", Path(), audio_required=False, text_required=False)
