"""Transcribing in several processes gives the result of one process."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from finetune.core import progress
from finetune.core.config import Recipe
from finetune.core.errors import DataError
from finetune.core.recipe import load_recipe
from finetune.core.run_dir import RunDir
from finetune.core.worker_pool import WorkerPool
from finetune.data.manifest import Utterance, read_manifest
from finetune.evaluation.shared_decoding import Share, SharedDecoding, System, deal, transcribe_share
from finetune.inference.recognize import recognize

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def recipe() -> Recipe:
    base = f"model.base={ROOT / 'data' / 'granite-speech-nano'}"
    return load_recipe(ROOT / "recipes" / "quickstart.yaml", [base])[0]


@pytest.fixture(scope="module")
def clips() -> list[Utterance]:
    folder = ROOT / "data" / "vocabulary"
    rows = read_manifest(folder / "canary.jsonl")[:9]
    return [replace(row, audio_filepath=str(folder / row.audio_filepath)) for row in rows]


def test_two_processes_give_the_tokens_of_one(recipe: Recipe, clips: list[Utterance], tmp_path: Path) -> None:
    threads, instruction = torch.get_num_threads(), recipe.model.instruction
    with SharedDecoding(2) as backend, progress.task("x", 1.0):
        model = backend.load(recipe, RunDir(tmp_path), "base")
        shared = backend.recognize(model, clips, instruction, recipe.decode)
        one = backend.recognize(model, clips[:1], instruction, recipe.decode)  # nothing for the other process
        missing = [*clips[:2], replace(clips[2], audio_filepath=str(tmp_path / "gone.wav"), duration=0.5)]
        with pytest.raises(DataError, match="gone.wav"):  # the shortest clip: in the share of the other process
            backend.recognize(model, missing, instruction, recipe.decode)
        alone = recognize(model, clips, instruction, recipe.decode)
        with pytest.raises(ValueError, match="loaded last"):
            backend.recognize(System(recipe, str(tmp_path), "base", 0).load(), clips, instruction, recipe.decode)
    assert [row.id for row in shared] == [clip.id for clip in clips]
    assert [(row.tokens, row.text) for row in shared] == [(row.tokens, row.text) for row in alone]
    assert [row.log_probability for row in shared] == pytest.approx([row.log_probability for row in alone], abs=1e-3)
    assert one[0].tokens == alone[0].tokens and torch.get_num_threads() == threads


def test_a_worker_computes_with_the_threads_of_its_share(recipe: Recipe, tmp_path: Path) -> None:
    """A worker process starts with one thread, and would be slower than this process with an equal share."""
    share = Share(System(recipe, str(tmp_path), "base", 0), [], recipe.model.instruction, recipe.decode, 3)
    with WorkerPool(1, processes=True) as pool:
        assert pool.submit(transcribe_share, share).result() == []
        assert pool.submit(eval, "__import__('torch').get_num_threads()").result() == 3


def test_one_process_uses_the_plain_functions() -> None:
    with SharedDecoding(1) as backend:
        assert backend.recognize is recognize


def test_shares_have_about_the_same_audio_and_every_clip_once() -> None:
    durations = [float(value % 13 + 1) for value in range(101)]
    shares = deal(durations, 4)
    assert sorted(index for share in shares for index in share) == list(range(101))
    seconds = [sum(durations[index] for index in share) for share in shares]
    assert max(seconds) - min(seconds) <= 1.0
    assert deal([3.0], 3) == [[0], [], []] and deal([], 2) == [[], []]
