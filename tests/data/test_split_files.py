"""The files of a split: utterances by number, problems as one JSON object, new ids for replay."""

from dataclasses import asdict
from pathlib import Path

import pytest

from finetune.core.files import write_json
from finetune.data.kept_rows import comparison_hash
from finetune.data.manifest import Utterance
from finetune.data.problems import Problem, ProblemSummary
from finetune.data.shared_ids import rename_shared_ids
from finetune.data.split_files import SplitItems, SplitResult, SplitWriter, write_problems
from finetune.data.style import SplitStyle


def write(folder: Path, ids: list[str], problems: list[Problem] | None = None) -> SplitResult:
    writer = SplitWriter(folder)
    for number, name in enumerate(ids):
        writer.keep(Utterance(name, f"/a/{number}.wav", 1.0, f"text {number} é"), comparison_hash(name))
        assert writer.kept_item(number).id == name and writer.kept_item(0).id == ids[0]
    for problem in problems or []:
        writer.drop(problem)
        writer.warn(problem)
    writer.close()
    return SplitResult(folder, len(ids), float(len(ids)), ProblemSummary(), SplitStyle(len(ids), [], [], [], 0))


def test_utterances_are_found_by_number(tmp_path: Path) -> None:
    names = [f"id {number}" for number in range(3000)]
    items = SplitItems(write(tmp_path, names))
    assert [item.id for item in items] == names
    assert items[2999].id == "id 2999" and [item.id for item in items[5:8]] == names[5:8]
    assert items[-1].text == "text 2999 é"


def test_new_ids_of_replay_keep_every_row_in_its_place(tmp_path: Path) -> None:
    train = write(tmp_path / "train", ["a", "in both", "1", "1-2"])
    replay = write(tmp_path / "replay", ["x", "own", "in both", "y", "a"])
    rename_shared_ids(replay, train)
    expected = ["x", "own", "2", "y", "4"]
    assert [item.id for item in replay.items()] == expected
    assert [replay.item(number).id for number in range(5)] == expected
    again = write(tmp_path / "again", ["2", "in both"])
    rename_shared_ids(again, train)
    assert [item.id for item in again.items()] == ["2", "1-3"]


@pytest.mark.parametrize("name", ["é", "\udcff.wav"])
def test_problems_are_written_as_write_json_writes_them(tmp_path: Path, name: str) -> None:
    problems = [Problem("audio too short", name, f"{name}:1", 'a "quoted"\nline'), Problem("silent audio", "b", "", "")]
    splits = {"train": write(tmp_path / "train", ["a"], problems), "test": write(tmp_path / "test", ["b"])}
    write_problems(tmp_path / "problems.json", splits)
    rows = [asdict(problem) for problem in problems]
    content = {"train": {"dropped": rows, "warnings": rows}, "test": {"dropped": [], "warnings": []}}
    write_json(tmp_path / "expected.json", content)
    assert (tmp_path / "problems.json").read_bytes() == (tmp_path / "expected.json").read_bytes()
