"""The plan of an epoch: every chosen clip, within the limits, and the same clips in a step for any split."""

import itertools
import math
import random
import time
from collections import Counter
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finetune.training.plan import (
    JITTER,
    WINDOW,
    EpochPlan,
    Groups,
    concat_utterances,
    occurrences,
    padding_fraction,
    plan_epoch,
    sample_replay,
    sample_weighted,
    shard_for_rank,
)

SIZE, SEED = st.integers(1, 90), st.integers(0, 10_000)
Plan = Sequence[Sequence[list[int]]]


def plan_of(
    durations: list[float],
    positions: list[int] | None = None,
    *,
    seconds: float = 60.0,
    tokens: int = 4000,
    group: int = 1,
    seed: int = 1,
    epoch: int = 0,
    chosen: list[int] | None = None,
) -> EpochPlan:
    return plan_epoch(
        durations,
        positions or [20] * len(durations),
        seconds,
        tokens,
        group,
        seed,
        epoch,
        chosen if chosen is not None else list(range(len(durations))),
    )


def batches_of(plan: Plan) -> list[list[int]]:
    return [batch for step in plan for batch in step]


def speech(count: int, seed: int) -> tuple[list[float], list[int]]:
    """Durations and positions like those of a corpus: many short clips, few long clips, slow and fast speakers."""
    rng = np.random.default_rng(seed)
    durations = np.clip(rng.lognormal(1.7, 0.7, count), 0.5, 30.0)
    return durations.tolist(), [int(value) for value in 20 + durations * (10 + rng.uniform(1.5, 5.0, count))]


# The plan


@settings(deadline=None)
@given(SIZE, SEED, st.floats(5.0, 240.0), st.integers(64, 4000), st.integers(1, 8), st.integers(0, 120))
def test_plans_have_each_chosen_clip_and_keep_both_limits(
    size: int, epoch: int, seconds: float, tokens: int, group: int, occurrences: int
) -> None:
    durations, positions = speech(size, epoch)
    chosen = np.random.default_rng(epoch).integers(0, size, occurrences).tolist()
    plan = plan_epoch(durations, positions, seconds, tokens, group, 1, epoch, chosen)
    batches = batches_of(plan)
    assert Counter(itertools.chain(*batches)) == Counter(chosen)
    for batch in batches:
        assert len(batch) == 1 or max(durations[i] for i in batch) * len(batch) <= seconds
        assert len(batch) == 1 or max(positions[i] for i in batch) * len(batch) <= tokens
    assert all(len(step) == group for step in plan[:-1]) and all(1 <= len(step) <= group for step in plan)
    assert list(plan) == list(plan_epoch(durations, positions, seconds, tokens, group, 1, epoch, chosen))


def test_a_clip_above_the_limit_is_a_batch_of_its_own() -> None:
    assert sorted(map(sorted, batches_of(plan_of([50.0, 1.0, 1.0], seconds=10.0)))) == [[0], [1, 2]]
    assert sorted(map(sorted, batches_of(plan_of([1.0, 1.0, 1.0], [20, 900, 20], tokens=100)))) == [[0, 2], [1]]


@settings(deadline=None, max_examples=50)
@given(SIZE, SEED)
def test_steps_do_not_depend_on_ranks_and_accumulation(size: int, epoch: int) -> None:
    """With equal ranks times accumulation, a step has the same clips, and each rank the same number of batches."""
    durations, positions = speech(size, epoch)
    seen = []
    for ranks, accumulation in [(1, 8), (2, 4), (4, 2), (8, 1)]:
        plan = plan_of(durations, positions, group=ranks * accumulation, epoch=epoch)
        shares = [[shard_for_rank(step, rank, ranks) for rank in range(ranks)] for step in plan]
        assert all(len(local) == len(step[0]) <= accumulation for step in shares for local in step)
        seen.append([sorted(itertools.chain(*itertools.chain(*step))) for step in shares])
    assert all(steps == seen[0] for steps in seen)


def pairs(plan: Plan) -> set[tuple[int, int]]:
    return {pair for batch in batches_of(plan) for pair in itertools.combinations(sorted(batch), 2)}


def test_epochs_and_seeds_have_other_clips_together() -> None:
    durations, positions = speech(600, 0)
    plans = [plan_of(durations, positions, seed=seed, epoch=epoch) for seed in (1, 2) for epoch in (0, 1)]
    for one, two in itertools.combinations(map(pairs, plans), 2):
        assert len(one & two) < 0.7 * len(one)


def test_identical_clips_are_mixed_between_epochs() -> None:
    plans = [pairs(plan_of([2.0] * 60, seed=seed, epoch=epoch)) for seed in (1, 2) for epoch in (0, 1)]
    assert all(len(one & two) < 0.7 * len(one) for one, two in itertools.combinations(plans, 2))


def test_lengths_are_shuffled_over_the_steps() -> None:
    durations, positions = speech(2000, 0)
    means = [np.mean([durations[i] for i in batch]) for batch in batches_of(plan_of(durations, positions))]
    assert abs(np.corrcoef(np.arange(len(means)), means)[0, 1]) < 0.2


@settings(deadline=None, max_examples=20)
@given(SEED)
def test_padding_of_audio_and_text_is_small(seed: int) -> None:
    durations, positions = speech(2000, seed)
    plan = plan_of(durations, positions, seconds=120.0, tokens=16_000, epoch=seed)
    assert padding_fraction(plan, durations) < 0.06
    assert padding_fraction(plan, positions) < 0.07


def test_padding_fraction_by_hand() -> None:
    assert padding_fraction([[[0, 1]], [[2]]], [1.0, 3.0, 2.0]) == pytest.approx(2.0 / 8.0)
    assert padding_fraction([[[0], [1]]], [1.0, 3.0]) == 0.0


# Clips of an epoch


@settings(deadline=None)
@given(st.integers(1, 50), st.integers(0, 50), st.floats(0.01, 4.0), st.integers(0, 9))
def test_train_occurs_once_and_replay_by_its_weight(train: int, replay: int, weight: float, epoch: int) -> None:
    times = Counter(sample_replay(train, replay, weight, 1, epoch).tolist())
    assert times == Counter(sample_replay(train, replay, weight, 1, epoch).tolist())
    assert all(times.pop(index) == 1 for index in range(train))
    assert set(times) <= set(range(train, train + replay))
    assert all(int(weight) <= times[index] <= int(weight) + 1 for index in range(train, train + replay))
    assert abs(sum(times.values()) - weight * replay) <= 1


def test_replay_samples_differ_between_epochs_and_seeds() -> None:
    halves = [frozenset(sample_replay(3, 40, 0.5, seed, epoch)[3:].tolist()) for seed in (1, 2) for epoch in range(10)]
    assert all(len(half) == 20 for half in halves) and len(set(halves)) == 20
    assert set().union(*halves[:10]) == set(range(3, 43))


def test_whole_replay_weights_and_no_replay() -> None:
    assert sample_replay(2, 2, 1.0, 1, 0).tolist() == [0, 1, 2, 3]
    assert sorted(sample_replay(1, 2, 2.0, 1, 0)) == [0, 1, 1, 2, 2]
    assert sample_replay(3, 0, 0.5, 1, 0).tolist() == [0, 1, 2]


def test_a_weight_below_one_clip_still_samples_some_epochs() -> None:
    assert 3 <= sum(len(sample_replay(0, 1, 0.1, 1, epoch)) for epoch in range(100)) <= 20


# Clips in a row


@given(SIZE, SEED, st.floats(0, 0.95), st.floats(1, 40))
def test_groups_have_each_clip_once_one_language_and_keep_the_limit(
    size: int, seed: int, probability: float, longest: float
) -> None:
    durations, languages = speech(size, seed)[0], ["en" if index % 3 else "fr" for index in range(size)]
    groups = concat_utterances(range(size), durations, languages, probability, longest, seed, 0)
    assert sorted(itertools.chain(*groups)) == list(range(size))
    for group in groups:
        assert len(group) == 1 or sum(durations[index] for index in group) <= longest
        assert len({languages[index] for index in group}) == 1
    assert list(groups) == list(concat_utterances(range(size), durations, languages, probability, longest, seed, 0))


def test_the_probability_sets_the_group_sizes() -> None:
    plain = concat_utterances(range(400), [1.0] * 400, [""] * 400, 0.0, 1e9, 1, 0)
    assert list(plain) == [(index,) for index in range(400)]
    for probability in (0.2, 0.5, 0.8):
        groups = concat_utterances(range(4000), [1.0] * 4000, [""] * 4000, probability, 1e9, 1, 0)
        assert 1 - len(groups) / 4000 == pytest.approx(probability, abs=0.03)
        sizes = Counter(map(len, groups))
        assert all(
            sizes[size] / len(groups) == pytest.approx((1 - probability) * probability ** (size - 1), abs=0.03)
            for size in range(1, 6)
        )
    assert list(groups) != list(concat_utterances(range(4000), [1.0] * 4000, [""] * 4000, probability, 1e9, 1, 1))


def test_a_batch_may_reach_its_limits_exactly() -> None:
    for seconds, tokens, size in ((4.0, 999, 2), (999.0, 30, 3), (3.9, 29, 1)):
        plan = plan_epoch([2.0] * 6, [10] * 6, seconds, tokens, 1, 1, 0, range(6))
        assert [len(batch) for step in plan for batch in step] == [size] * (6 // size)


# The plan as Python lists and `random` give it, item by item


def planned_in_lists(
    durations: list[float], positions: list[int], seconds: float, tokens: int, seed: int, epoch: int, chosen: list[int]
) -> list[list[int]]:
    """The micro-batches of a plan in Python objects, which need a kilobyte for a clip."""
    rng = random.Random(f"{seed}/{epoch}")
    phase = rng.random()
    reverse = rng.random() < 0.5
    keys = []
    for index in chosen:
        window = math.floor(math.log(durations[index]) / WINDOW + phase)
        keys.append((window, positions[index] * rng.uniform(1 - JITTER, 1 + JITTER) * (1 if window % 2 else -1)))
    order = sorted(range(len(chosen)), key=keys.__getitem__, reverse=reverse)
    batches: list[list[int]] = []
    for index in [chosen[number] for number in order]:
        together = [*batches[-1], index] if batches else []
        fits = bool(together) and all(
            max(sizes[item] for item in together) * len(together) <= limit
            for sizes, limit in ((durations, seconds), (positions, tokens))
        )
        batches = [*batches[:-1], together] if fits else [*batches, [index]]
    rng.shuffle(batches)
    return batches


@settings(deadline=None, max_examples=40)
@given(SIZE, SEED, SEED, st.integers(0, 200), st.sampled_from([1, 2, 6]))
def test_plans_are_those_of_python_lists(size: int, seed: int, epoch: int, occurrences: int, digits: int) -> None:
    """With ties in durations and positions, which keep their order in both directions."""
    durations, positions = speech(size, seed)
    durations = [round(duration, digits) for duration in durations]
    chosen = np.random.default_rng(seed).integers(0, size, occurrences).tolist()
    plan = plan_epoch(durations, positions, 30.0, 700, 1, seed, epoch, chosen)
    assert batches_of(plan) == planned_in_lists(durations, positions, 30.0, 700, seed, epoch, chosen)


def test_equal_clips_keep_their_order_in_both_directions() -> None:
    """Two occurrences of a clip without text have equal keys."""
    orders = set()
    for epoch in range(8):
        plan = plan_epoch([2.0, 2.0, 2.0], [0, 0, 0], 99.0, 99, 1, 1, epoch, [2, 0, 1])
        orders.add(tuple(plan[0][0]))
    assert orders == {(2, 0, 1)}


@given(st.lists(st.sampled_from([(0,), (1,), (2,), (0, 1), (1, 0), (2, 2)]), max_size=30))
def test_occurrences_are_counted_by_group(groups: list[tuple[int, ...]]) -> None:
    times, expected = Counter[tuple[int, ...]](), []
    for group in groups:
        times[group] += 1
        expected.append(times[group])
    assert occurrences(Groups.of(groups)).tolist() == expected


def test_groups_are_selected_and_joined() -> None:
    groups = Groups.of([(4,), (1, 2), (), (3, 0, 5)])
    assert list(groups) == [(4,), (1, 2), (), (3, 0, 5)] and groups[-1] == (3, 0, 5) and groups[1:3] == [(1, 2), ()]
    assert list(groups.select(np.array([3, 0, 3]))) == [(3, 0, 5), (4,), (3, 0, 5)]
    assert list(Groups.joined([groups, Groups.of([]), groups.select(np.array([1]))])) == [*groups, (1, 2)]
    with pytest.raises(IndexError):
        groups[4]


def test_a_plan_is_a_sequence_of_steps() -> None:
    plan = EpochPlan(Groups.of([(3,), (1, 2), (0,)]), 2)
    assert len(plan) == 2 and list(plan) == plan[:] == [[[3], [1, 2]], [[0]]] and plan[-1] == [[0]]
    with pytest.raises(IndexError):
        plan[2]


def test_weights_repeat_and_sample_clips() -> None:
    chosen, weights = np.arange(100, dtype=np.int32), np.ones(100)
    assert sample_weighted(chosen, weights, 1, 0).tolist() == chosen.tolist()
    weights[:40], weights[90:] = 2.5, 0.5
    epochs = [Counter(sample_weighted(chosen, weights, 1, epoch).tolist()) for epoch in range(20)]
    assert epochs[0] == Counter(sample_weighted(chosen, weights, 1, 0).tolist()) != epochs[1]
    for times in epochs:
        assert {times[clip] for clip in range(40)} == {2, 3} and sum(times[clip] for clip in range(40)) == 100
        assert {times[clip] for clip in range(40, 90)} == {1} and sum(times[clip] for clip in range(90, 100)) == 5
    assert [len(sample_weighted(chosen, np.full(100, 1e-9), 1, epoch)) for epoch in range(3)] == [1, 1, 1]


def test_many_different_weights_are_sampled_in_reasonable_time() -> None:
    size = 100_000
    started = time.process_time()
    clips = sample_weighted(np.arange(size, dtype=np.int32), np.linspace(0.5, 1.5, size), 1, 0)
    assert time.process_time() - started < 5  # comparing each weight with all others takes longer
    assert len(clips) == pytest.approx(size, rel=0.02) and (np.diff(clips) >= 0).all()
