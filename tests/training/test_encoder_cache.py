"""The cache of audio states: states are read bit for bit, and a damaged or outdated cache is never used."""

import json
import multiprocessing
import os
import signal
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from finetune.core.errors import DataError
from finetune.data.manifest import Utterance
from finetune.training.encoder_cache import StateCache, cache_key, cached_states, predicted_bytes

FRAMES = [3, 1, 7, 4]
BATCHES = [[2, 0], [3], [1]]


class Encoder:
    """Replaces the model: returns random states of each clip and counts its calls."""

    def __init__(self, frames: list[int], width: int, dtype: torch.dtype, seed: int = 0) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.states = [torch.randn(count, width, generator=generator).to(dtype) for count in frames]
        self.calls = 0

    def __call__(self, batch: Sequence[int]) -> list[Tensor]:
        self.calls += 1
        return [self.states[index] for index in batch]


def build(
    folder: Path,
    encode: Encoder,
    key: str = "key",
    dtype: torch.dtype = torch.float32,
    batches: Sequence[Sequence[int]] = BATCHES,
) -> StateCache:
    return cached_states(folder, key, dtype, batches, encode)


def same(cache: StateCache, states: list[Tensor]) -> bool:
    return len(cache) == len(states) and all(
        cache[i].dtype == states[i].dtype and torch.equal(cache[i], states[i]) for i in range(len(states))
    )


@settings(max_examples=15, deadline=None)
@given(
    st.lists(st.integers(1, 9), min_size=1, max_size=12),
    st.integers(1, 33),
    st.sampled_from([torch.float32, torch.bfloat16]),
    st.integers(1, 4),
    st.randoms(use_true_random=False),
)
def test_cached_states_equal_the_written_states(
    tmp_path_factory: pytest.TempPathFactory, frames: list[int], width: int, dtype: torch.dtype, size: int, random: Any
) -> None:
    folder = tmp_path_factory.mktemp("cache") / "states"
    encode, order = Encoder(frames, width, dtype), list(range(len(frames)))
    random.shuffle(order)
    batches = [order[i : i + size] for i in range(0, len(order), size)]
    assert same(build(folder, encode, dtype=dtype, batches=batches), encode.states)
    again = build(folder, encode, dtype=dtype, batches=batches)
    assert same(again, encode.states) and encode.calls == len(batches), "it was built twice"
    assert again.frames.tolist() == frames
    assert (folder / "rows.bin").stat().st_size == predicted_bytes(sum(frames), width, dtype)


def test_states_from_inference_mode_and_non_contiguous_states_are_cached(tmp_path: Path) -> None:
    stacked = torch.randn(2, 5, 6)

    @torch.inference_mode()
    def encode(batch: Sequence[int]) -> list[Tensor]:
        return [(stacked * 1)[index, :count, ::2] for index, count in zip(batch, (5, 3), strict=True)]

    cache = cached_states(tmp_path / "states", "key", torch.bfloat16, [[0, 1]], encode)
    assert same(cache, [stacked[0, :, ::2].bfloat16(), stacked[1, :3, ::2].bfloat16()])
    assert not cache[0].is_inference()


def test_nan_and_infinity_are_cached_unchanged(tmp_path: Path) -> None:
    encode = Encoder([1], 4, torch.float32)
    encode.states = [torch.tensor([[float("nan"), float("inf"), -0.0, 1e-42]])]
    cache = build(tmp_path / "states", encode, batches=[[0]])
    assert torch.equal(cache[0].view(torch.int32), encode.states[0].view(torch.int32))


def test_changing_a_returned_tensor_does_not_change_the_cache(tmp_path: Path) -> None:
    encode = Encoder(FRAMES, 5, torch.float32)
    cache = build(tmp_path / "states", encode)
    cache[2].zero_()
    assert same(cache, encode.states) and same(build(tmp_path / "states", encode), encode.states)


def test_a_cache_with_another_key_or_dtype_is_rebuilt(tmp_path: Path) -> None:
    folder, first, second = tmp_path / "states", Encoder(FRAMES, 5, torch.float32), Encoder(FRAMES, 5, torch.float32, 1)
    held = build(folder, first)
    assert same(build(folder, second, "other"), second.states) and second.calls == len(BATCHES)
    assert same(held, first.states), "a process that still reads the old one keeps it"
    assert same(build(folder, first), first.states) and first.calls == 2 * len(BATCHES)
    half = Encoder(FRAMES, 5, torch.bfloat16)
    assert same(build(folder, half, dtype=torch.bfloat16), half.states) and half.calls == len(BATCHES)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["states", "states.lock"]


@pytest.mark.parametrize(
    "spoil",
    [
        lambda folder: (folder / "rows.bin").unlink(),
        lambda folder: (folder / "index.json").unlink(),
        lambda folder: os.truncate(folder / "rows.bin", (folder / "rows.bin").stat().st_size - 4),
        lambda folder: os.truncate(folder / "rows.bin", 0),
        lambda folder: (folder / "index.json").write_text('{"key": "key/torch.fl'),
        lambda folder: (folder / "index.json").write_text("[]"),
        lambda folder: (folder / "index.json").write_text(json.dumps({"key": "key/torch.float32"})),
    ],
)
def test_a_damaged_cache_is_rebuilt(tmp_path: Path, spoil: Callable[[Path], object]) -> None:
    folder, encode = tmp_path / "states", Encoder(FRAMES, 5, torch.float32)
    build(folder, encode)
    spoil(folder)
    assert same(build(folder, encode), encode.states) and encode.calls == 2 * len(BATCHES)


@pytest.mark.parametrize("after", [0, 1, 2])
@pytest.mark.parametrize("old", [False, True])
def test_a_killed_build_is_not_used(tmp_path: Path, after: int, old: bool) -> None:
    """The build is killed after some batches, with or without an earlier cache."""
    folder, encode = tmp_path / "states", Encoder(FRAMES, 5, torch.float32)
    if old:
        build(folder, Encoder(FRAMES, 5, torch.float32, 1), "other")

    def killed(batch: Sequence[int]) -> list[Tensor]:
        if batch == BATCHES[after]:
            os.kill(os.getpid(), signal.SIGKILL)
        return [encode.states[index] for index in batch]

    child = multiprocessing.get_context("fork").Process(
        target=cached_states, args=(folder, "key", torch.float32, BATCHES, killed)
    )
    child.start()
    child.join()
    assert child.exitcode == -signal.SIGKILL and (tmp_path / "states.part").is_dir()
    assert same(build(folder, encode), encode.states) and encode.calls == len(BATCHES)
    assert not (tmp_path / "states.part").exists()


def test_a_failed_encoder_leaves_no_files(tmp_path: Path) -> None:
    def fails(batch: Sequence[int]) -> list[Tensor]:
        raise DataError("a.wav: no such file")

    with pytest.raises(DataError, match="no such file"):
        cached_states(tmp_path / "states", "key", torch.float32, BATCHES, fails)
    assert [path.name for path in tmp_path.iterdir()] == ["states.lock"]


def test_a_full_disk_is_an_error_with_advice(tmp_path: Path) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    encode = Encoder(FRAMES, 5, torch.float32)
    with pytest.raises(DataError, match="No space left on device.*machine.cache_encoder: false"):
        cached_states(tmp_path / "states", "key", torch.float32, BATCHES, encode, fsync=full)
    assert [path.name for path in tmp_path.iterdir()] == ["states.lock"]


def test_a_clip_that_was_not_encoded_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(KeyError):
        build(tmp_path / "states", Encoder(FRAMES, 5, torch.float32), batches=[[0, 2]])
    with pytest.raises(DataError, match="is damaged directly after writing it"):
        build(tmp_path / "states", Encoder(FRAMES, 5, torch.float32), batches=[[0, 1], [1, 2]])


def _rank(folder: Path, builds: "multiprocessing.Queue[int]", encode: Encoder) -> None:
    cache = build(folder, encode)
    builds.put(encode.calls if same(cache, encode.states) else -1)


def test_one_of_several_processes_builds_the_cache(tmp_path: Path) -> None:
    context, encode = multiprocessing.get_context("fork"), Encoder(FRAMES, 5, torch.float32)
    builds: multiprocessing.Queue[int] = context.Queue()
    ranks = [context.Process(target=_rank, args=(tmp_path / "states", builds, encode)) for _ in range(3)]
    for rank in ranks:
        rank.start()
    assert sorted(builds.get(timeout=60) for _ in ranks) == [0, 0, len(BATCHES)]
    for rank in ranks:
        rank.join()


# The key


@pytest.fixture
def audio(tmp_path: Path) -> list[Utterance]:
    """Three clips of two files."""
    for name in "ab":
        (tmp_path / name).write_bytes(b"samples of " + name.encode())
    return [
        Utterance("1", str(tmp_path / "a"), 1.0, "x"),
        Utterance("2", str(tmp_path / "a"), 1.0, "x", 1.0),
        Utterance("3", str(tmp_path / "b"), 2.0, "x"),
    ]


def test_the_key_depends_on_weights_and_audio_but_not_on_text_or_path(audio: list[Utterance], tmp_path: Path) -> None:
    key = cache_key("base", audio)
    assert key == cache_key("base", audio) and len(key) == 64
    moved = tmp_path / "moved"
    os.rename(tmp_path / "b", moved)
    audio[2] = replace(audio[2], audio_filepath=str(moved), id="4", text="y")
    assert key == cache_key("base", audio)
    changed = [
        ("other base", audio),
        ("base", audio[:2]),
        ("base", audio[::-1]),
        ("base", [replace(audio[0], offset=0.5), *audio[1:]]),
        ("base", [replace(audio[0], duration=1.5), *audio[1:]]),
    ]
    keys = {key, *(cache_key(weights, clips) for weights, clips in changed)}
    assert len(keys) == 6
    moved.write_bytes(b"other samples")
    assert cache_key("base", audio) not in keys


def test_the_key_of_audio_that_cannot_be_read_changes_when_the_file_comes_back(
    audio: list[Utterance], tmp_path: Path
) -> None:
    complete = cache_key("base", audio)
    os.rename(tmp_path / "b", tmp_path / "away")
    assert cache_key("base", audio) == cache_key("base", audio) != complete
    os.rename(tmp_path / "away", tmp_path / "b")
    assert cache_key("base", audio) == complete
