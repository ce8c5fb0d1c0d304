"""Blocks of rows: all rows once and in order, and finished blocks are used only if nothing changed."""

import os
import signal
from pathlib import Path

import numpy as np
import pytest
import soundfile

from finetune.core.data_config import TextSection
from finetune.core.worker_pool import WorkerDied, WorkerPool
from finetune.data.audio import AudioInfo, inspect_audio
from finetune.data.corpus import Corpus
from finetune.data.row import Row
from finetune.data.row_blocks import BlockChecker, RowBlocks, block_file, read_block
from finetune.data.row_result import RowResult, RowSettings, decode_results, encode_results

SETTINGS = RowSettings(
    min_duration=0.1,
    max_duration=9,
    max_chars_per_second=99,
    special_tokens=("<|audio|>",),
    wordless="drop",
    text=TextSection(tags="strip", numbers="words"),
)


def numbered(count: int, name: str = "c") -> list[Row]:
    return [Row(f"{name}:{number}", {"text": str(number)}) for number in range(count)]


@pytest.mark.parametrize("counts", [[1], [63], [200], [127, 1, 300], [70_000], [512, 40_000, 513]])
def test_blocks_have_all_rows_in_order(counts: list[int]) -> None:
    corpora = [(f"c{index}", Corpus(numbered(count, f"c{index}"))) for index, count in enumerate(counts)]
    rows = RowBlocks(corpora)
    blocks = [rows.block(number) for number in range(rows.num_blocks)]
    expected = [row.where for _, corpus in corpora for row in corpus]
    assert [row.where for block in blocks for row in block] == expected and len(rows) == len(expected)
    assert max(map(len, blocks)) == rows.block_rows <= 512
    assert sum(counts) < 64 or rows.num_blocks >= 64
    chosen = [0, len(expected) // 2, len(expected) - 1]
    assert [rows.where(number) for number in chosen] == [expected[number] for number in chosen]
    assert ("corpus" in blocks[0][0].values) == (len(counts) > 1)


@pytest.fixture
def clips(tmp_path: Path) -> list[Row]:
    rows, rng = list[Row](), np.random.default_rng(1)
    for number in range(8):
        path = tmp_path / f"{number}.wav"
        soundfile.write(path, rng.uniform(-0.3, 0.3, (8000, 1 + number % 2)), 16_000)
        rows.append(Row(f"m:{number}", {"audio_filepath": str(path), "text": f"say <unk> {number} Ã©\u200b"}))
    return [*rows, Row("m:8", {"audio_filepath": str(tmp_path / "gone.wav"), "text": "x"})]


def check(rows: list[Row], folder: Path | None = None, processes: bool = False) -> tuple[list[RowResult], list[str]]:
    """The results, and the names of the files that were decoded."""
    decoded = list[str]()

    def inspect(path: str, *args: float | None) -> AudioInfo:
        decoded.append(Path(path).stem)
        return inspect_audio(path, *args)  # type: ignore[arg-type]

    with WorkerPool(2, processes) as pool:
        checker = BlockChecker(
            RowBlocks([("m", rows)]), SETTINGS, pool, folder, inspect_audio if processes else inspect
        )
        return [result for block in checker.results() for result in block], sorted(decoded)


def test_processes_give_the_results_of_threads(clips: list[Row]) -> None:
    results, _ = check(clips)
    assert check(clips, processes=True)[0] == results
    assert decode_results(encode_results(results)) == results
    assert [bool(result.utterance) for result in results] == [True] * 8 + [False]
    assert results[0].events and results[0].features and results[1].mix and len(results[1].warnings) == 2


def test_finished_blocks_are_not_checked_again(clips: list[Row], tmp_path: Path) -> None:
    work = tmp_path / "work"
    first, decoded = check(clips, work)
    assert decoded == [*"01234567", "gone"]
    assert check(clips, work) == (first, [])
    block_file(work, 2).unlink()
    block_file(work, 4).write_bytes(block_file(work, 4).read_bytes()[:-1])
    block_file(work, 5).write_bytes(b"")
    content = bytearray(block_file(work, 6).read_bytes())
    content[-3] ^= 1
    block_file(work, 6).write_bytes(content)
    assert check(clips, work) == (first, [*"2456"]), "missing or damaged"
    assert not [path for path in work.iterdir() if path.suffix != ".block"]


def test_a_block_is_checked_again_if_its_audio_changed(clips: list[Row], tmp_path: Path) -> None:
    work = tmp_path / "work"
    first, _ = check(clips, work)
    os.utime(tmp_path / "3.wav", ns=(1, 1))
    (tmp_path / "5.wav").unlink()
    (tmp_path / "0.wav").rename(tmp_path / "gone.wav")
    (tmp_path / "1.wav").rename(tmp_path / "0.wav")
    results, decoded = check(clips, work)
    assert decoded == [*"0135", "gone"]
    assert [result.utterance is not None for result in results] == [True, False, *[True] * 3, False, *[True] * 3]
    assert results[2] == first[2] and results[8] != first[8]
    assert read_block(work / "other") is None


def crash(path: str, *_: object) -> AudioInfo:
    if path.endswith("5.wav"):
        os.kill(os.getpid(), signal.SIGSEGV)
    return inspect_audio(path)


def test_rows_that_crash_a_worker_are_named(clips: list[Row]) -> None:
    with WorkerPool(1, processes=True) as pool:
        checker = BlockChecker(RowBlocks([("m", clips)]), SETTINGS, pool, None, crash)
        with pytest.raises(
            WorkerDied, match=r"^m:5 to m:5: a worker process ended: SIGSEGV\. If memory .*decoder crash"
        ):
            list(checker.results())
