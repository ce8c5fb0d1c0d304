"""A sample of `scripts/kill_prepare.py`: worker processes, three kills."""

from pathlib import Path

import pytest

from finetune.data.row_blocks import uses_processes
from kill_prepare import compare


def test_a_killed_prepare_gives_the_same_files(tmp_path: Path) -> None:
    assert uses_processes(1000)
    assert compare(tmp_path, rows=1000, kills=3, seed=1).startswith("3 kills in ")


@pytest.mark.slow
def test_twenty_kills(tmp_path: Path) -> None:
    assert compare(tmp_path, rows=4000, kills=20, seed=2).startswith("20 kills in ")
