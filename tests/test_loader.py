"""The plan of an epoch: every clip once, within the budget, the same clips in a step however it is split."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finetune.data.augment import WaveAugment
from finetune.data.loader import Clips, plan_epoch, share, waves_of
from finetune.data.manifest import Utterance

DURATIONS = st.lists(st.floats(0.2, 30.0), min_size=1, max_size=80)


@given(DURATIONS, st.floats(30.0, 240.0), st.integers(1, 8), st.integers(0, 3), st.integers(0, 3))
def test_each_clip_once_and_the_budget_held(durations: list[float], budget: float, group: int, seed: int,
                                            epoch: int) -> None:
    plan = plan_epoch(durations, budget, group, seed, epoch)
    batches = [batch for step in plan for batch in step]
    assert sorted(itertools.chain(*batches)) == list(range(len(durations)))
    assert all(max(durations[i] for i in batch) * len(batch) <= budget for batch in batches)
    assert all(len(step) == group for step in plan[:-1]) and 1 <= len(plan[-1]) <= group
    assert plan == plan_epoch(durations, budget, group, seed, epoch)


def test_a_clip_above_the_budget_stands_alone() -> None:
    plan = plan_epoch([50.0, 1.0, 1.0], 10.0, 1, 0, 0)
    assert sorted(sorted(batch) for step in plan for batch in step) == [[0], [1, 2]]


@given(DURATIONS, st.integers(0, 5))
def test_one_by_eight_is_two_by_four_is_eight_by_one(durations: list[float], epoch: int) -> None:
    """Ranks times accumulation is what counts: the same clips make up each step, and every rank has as much to do."""
    splits = [(1, 8), (2, 4), (4, 2), (8, 1)]
    seen = []
    for ranks, accumulation in splits:
        plan = plan_epoch(durations, 60.0, ranks * accumulation, 1, epoch)
        shares = [[share(step, rank, ranks, accumulation) for rank in range(ranks)] for step in plan]
        assert all(len(mine) == accumulation for step in shares for mine in step)
        seen.append([sorted(itertools.chain(*itertools.chain(*step))) for step in shares])
    assert all(steps == seen[0] for steps in seen)


def test_epochs_and_seeds_differ() -> None:
    durations = [1.0 + index % 7 for index in range(60)]
    plans = [plan_epoch(durations, 20.0, 1, seed, epoch) for seed in (1, 2) for epoch in (0, 1)]
    assert all(a != b for a, b in itertools.combinations(plans, 2))


@settings(max_examples=20)
@given(st.integers(0, 100))
def test_clips_of_a_batch_are_of_like_length(seed: int) -> None:
    rng = np.random.default_rng(seed)
    durations = [float(value) for value in rng.uniform(1.0, 20.0, 400)]
    batches = [batch for step in plan_epoch(durations, 60.0, 1, seed, 0) for batch in step]
    padded = sum(max(durations[i] for i in batch) * len(batch) for batch in batches)
    assert padded < 1.25 * sum(durations)


@pytest.mark.parametrize("workers", [0, 2])
def test_waves_come_in_the_plans_order(clips: list[Utterance], workers: int) -> None:
    """And are the same whatever the number of workers and the order."""
    made = Clips(clips, WaveAugment(0.1, 6.0, 20.0), 1, 0)
    batches = [[3, 0], [5], [1, 2, 4]]
    found = list(waves_of(made, batches, workers))
    assert [len(waves) for waves in found] == [2, 1, 3]
    for waves, batch in zip(found, batches, strict=True):
        for wave, index in zip(waves, batch, strict=True):
            assert isinstance(wave, np.ndarray) and wave.dtype == np.float32
            assert np.array_equal(wave, made[index])
