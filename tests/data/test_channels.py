"""Channels: a row of one side of a call has the samples of this side, in every spelling."""

import json
import logging
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from finetune.core.errors import DataError
from finetune.data.audio import load_utterance
from finetune.data.audit import Audit, audit
from finetune.data.corpora import read_corpus
from finetune.data.manifest import read_manifest, write_manifest
from finetune.evaluation.utterances import read_utterances


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with call.wav, whose two channels differ, and mono.wav."""
    sides = np.random.default_rng(0).uniform(-0.3, 0.3, (32_000, 2)).astype(np.float32)
    soundfile.write(tmp_path / "call.wav", sides, 16_000, "FLOAT")
    soundfile.write(tmp_path / "mono.wav", sides[:, 0], 16_000, "FLOAT")
    return tmp_path


def audited(folder: Path, *rows: dict[str, Any]) -> Audit:
    path = folder / "m.jsonl"
    path.write_text("\n".join(json.dumps({"audio_filepath": "call.wav", "text": "a"} | row) for row in rows))
    limits = {"min_duration": 0.1, "max_duration": 60, "max_chars_per_second": 50}
    return audit(read_corpus(str(path), folder), **limits, special_tokens=(), workers=1)


COLUMNS = (
    "channel",
    "Channel ID",
    "ch",
    "channelIndex",
    "audio_channel",
    "channel_selector",
    "speakerChannel",
    "ch_no",
    "channelTag",
    "Kanal",
)
VALUES = [(0, 1), ("left", "right"), ("L", "R"), ("A", "B"), ("0", "1.0"), ([0], [1])]


@pytest.mark.parametrize(("column", "values"), [*product(COLUMNS, VALUES), ("channels", ([0], [1]))])
def test_each_side_has_its_samples(folder: Path, column: str, values: tuple[Any, Any]) -> None:
    result = audited(folder, *({column: value} for value in values))
    sides, _ = soundfile.read(folder / "call.wav", dtype="float32")
    assert [item.channel for item in result.kept] == [0, 1] and not result.warnings
    assert [item.id for item in result.kept] == ["call-ch0", "call-ch1"]
    write_manifest(folder / "out.jsonl", result.kept)
    for utterances in (
        result.kept,
        read_manifest(folder / "out.jsonl"),
        read_utterances(folder / "out.jsonl"),
        read_utterances(folder / "m.jsonl"),
    ):
        for number, item in enumerate(utterances):
            assert np.array_equal(load_utterance(item), sides[:, number])


@pytest.mark.parametrize("column", ["side", "Call Leg", "Seite", "côté", "channel_name"])
@pytest.mark.parametrize("values", [("L", "R"), (0, 1), ("a", "b")])
def test_a_column_of_sides_is_the_channel_of_files_with_two(folder: Path, column: str, values: tuple[Any, Any]) -> None:
    result = audited(folder, *({column: value} for value in values))
    assert [item.channel for item in result.kept] == [0, 1] and not result.warnings
    mono, _ = soundfile.read(folder / "call.wav", dtype="float32")
    soundfile.write(folder / "call.wav", mono[:, 0], 16_000)  # a file of its own for each side
    result = audited(folder, *({column: value} for value in values))
    assert [(item.channel, item.extra) for item in result.kept] == [(None, {column: value}) for value in values]


@pytest.mark.parametrize("rows", [[{"side": "front"}, {"side": "L"}], [{"leg": 1}, {"leg": 2}], [{"inside": "L"}]])
def test_other_values_are_no_sides_of_a_call(folder: Path, rows: list[dict[str, Any]]) -> None:
    assert [(item.channel, item.extra) for item in audited(folder, *rows).kept] == [(None, row) for row in rows]


@pytest.mark.parametrize("column", ["side", "channel_name", "channelName"])
def test_the_persons_of_a_call_are_not_averaged(folder: Path, column: str) -> None:
    result = audited(folder, {column: "agent"}, {column: "Customer"})
    assert not result.kept and [problem.kind for problem in result.dropped] == 2 * ["invalid channel"]
    assert "'agent' is not a channel; write 0, 1, ... or left and right" in result.dropped[0].detail


def test_the_column_channel_counts_and_not_the_side(folder: Path) -> None:
    result = audited(folder, {"channel": 1, "side": "L"}, {"channel": 0, "side": "R"})
    assert [item.channel for item in result.kept] == [1, 0]


def test_a_channel_beside_the_path_in_an_object(folder: Path) -> None:
    result = audited(folder, {"audio_filepath": {"path": "call.wav", "channel": 1, "start": 0.5, "end": 1.5}})
    assert [(item.channel, item.offset, item.duration) for item in result.kept] == [(1, 0.5, 1.0)]


def test_other_columns_about_channels_choose_none(folder: Path) -> None:
    columns = {"num_channels": 2, "channel_name": "news", "channels": 2}
    result = audited(folder, columns)
    assert result.kept[0].channel is None and result.kept[0].extra == columns


def test_rows_without_a_channel_average_all(folder: Path) -> None:
    rows: list[dict[str, Any]] = [{"channel": None}, {"channel": ""}, {"channel": "average"}, {"channel": 1}]
    assert [item.channel for item in audited(folder, *rows).kept] == [None, None, None, 1]


def test_segments_of_channels_have_readable_ids(folder: Path) -> None:
    rows = [{"channel": side, "start": 0.5, "end": 1.5} for side in ("left", "right", "right")]
    rows[2]["id"] = "call@0.500-ch0"
    assert [item.id for item in audited(folder, *rows).kept] == ["call@0.500-ch0-2", "call@0.500-ch1", "call@0.500-ch0"]


@pytest.mark.parametrize("values", [(1, 2), ("1", "2"), (2, 2)])
def test_channels_from_1_are_refused(folder: Path, values: tuple[Any, Any]) -> None:
    with pytest.raises(DataError, match=r"m.jsonl:\d: channel '?2'? does not exist: the file has 2, .* subtract 1"):
        audited(folder, *({"channel": value} for value in values))


def test_only_the_second_channel_is_a_note(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    assert [item.channel for item in audited(folder, {"channel": 1}).kept] == [1]
    assert "no row has channel 0; channels are numbered from 0, so 1 is the second channel" in caplog.text


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        ([0, 1], "invalid channel"),
        ("agent", "invalid channel"),
        (-1, "invalid channel"),
        (0.5, "invalid channel"),
        (2, "invalid channel"),
    ],
)
def test_an_unknown_channel_is_a_fault_of_the_row(folder: Path, value: Any, kind: str) -> None:
    result = audited(folder, {"channel": 0}, {"channel": value})
    assert len(result.kept) == 1 and [problem.kind for problem in result.dropped] == [kind]
    assert str(value).strip("[]") in result.dropped[0].detail


def test_another_meaning_of_channel_stays_a_column(folder: Path) -> None:
    """Such as the network of a call; a file with one channel leaves no doubt."""
    item = audited(folder, {"audio_filepath": "mono.wav", "channel": "phone", "channels": 1}).kept[0]
    assert item.channel is None and item.extra == {"channel_original": "phone", "channels": 1}
