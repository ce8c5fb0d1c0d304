"""The audio of a plan: augmented waveforms in the order of the plan, from any number of workers."""

import errno
import itertools
import multiprocessing
import os
import random
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from support import clip_table, waves_from

from bench.loopback import serve
from finetune.core.errors import DataError
from finetune.data.manifest import Utterance, concatenated
from finetune.data.tar_index import read_tar_index
from finetune.training.augment import WaveAugment
from finetune.training.sampler import Clips, Unreadable, waves_of


def test_concatenated_audio_equals_the_single_clips(clips: list[Utterance]) -> None:
    off = WaveAugment(0.0, 0.0, 0.0)
    alone = waves_from(clips, off)
    row = Clips(clip_table([clips[:3]]), off, 1, 0)[3]
    assert np.array_equal(row, np.concatenate([alone[index] for index in range(3)]))
    utterance = concatenated(clips[:3], 1)
    assert utterance.text.split() == [word for clip in clips[:3] for word in clip.text.split()]
    assert utterance.duration == pytest.approx(sum(clip.duration for clip in clips[:3]))
    assert utterance.id != concatenated(clips[:3], 2).id


# Audio of a plan

AUGMENT = WaveAugment(0.1, 6.0, 20.0)
BATCHES = [[3, 0], [5], [1, 2, 4], [0]]


@pytest.mark.parametrize("workers", [0, 2])
def test_waveforms_come_in_the_order_of_the_plan(clips: list[Utterance], workers: int) -> None:
    """They are also the same for any number of workers and any order."""
    made = waves_from(clips, AUGMENT)
    waveforms = list(waves_of(made, BATCHES, workers))
    assert [len(waves) for waves in waveforms] == [2, 1, 3, 1]
    for waves, batch in zip(waveforms, BATCHES, strict=True):
        for wave, index in zip(waves, batch, strict=True):
            assert isinstance(wave, np.ndarray) and wave.dtype == np.float32
            assert np.array_equal(wave, made[index])


@pytest.mark.parametrize("workers", [0, 1])
def test_a_resumed_epoch_has_the_remaining_clips_and_keeps_torchs_random_state(
    clips: list[Utterance], workers: int
) -> None:
    made, before = waves_from(clips, AUGMENT), torch.random.get_rng_state()
    all_waves = list(waves_of(made, BATCHES, workers))
    for done in range(len(BATCHES) + 1):
        remaining = list(waves_of(made, BATCHES[done:], workers if done == 2 else 0))
        assert len(remaining) == len(BATCHES) - done
        for ours, theirs in zip(itertools.chain(*remaining), itertools.chain(*all_waves[done:]), strict=True):
            assert np.array_equal(ours, theirs)
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize("workers", [0, 1])
def test_audio_that_cannot_be_read_is_named_in_its_place(clips: list[Utterance], workers: int) -> None:
    gone = replace(clips[1], audio_filepath="/nowhere/gone.wav")
    made = waves_from([clips[0], gone], AUGMENT)
    first, second = waves_of(made, [[0], [1, 0]], workers)
    reason = {gone.id: "/nowhere/gone.wav: no such file"}
    assert second[0] == Unreadable(reason) and np.array_equal(first[0], second[1])
    joined = Clips(clip_table([[clips[0], gone]]), AUGMENT, 1, 0)
    assert joined[2] == Unreadable(reason), "one of two concatenated utterances"


def test_ctrl_c_in_the_terminal_does_not_reach_the_workers(clips: list[Utterance]) -> None:
    before, waves = multiprocessing.active_children(), waves_of(waves_from(clips, AUGMENT), 4 * BATCHES, 2)
    next(waves), next(waves)  # one of each worker: both are up
    groups = [os.getpgid(worker.pid or 0) for worker in multiprocessing.active_children() if worker not in before]
    assert len(groups) == 2 and os.getpgrp() not in groups


def test_workers_that_cannot_start_are_named_with_what_they_need(
    clips: list[Utterance], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As without /dev/shm, where the locks of multiprocessing are."""

    def fail(*arguments: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(multiprocessing.get_context("fork"), "Lock", fail)
    with pytest.raises(DataError, match=r"workers cannot start \(Read-only file system\).*/dev/shm.*workers: 0"):
        next(waves_of(waves_from(clips, AUGMENT), BATCHES, 1))


def test_workers_do_not_run_the_users_script_again(clips: list[Utterance], monkeypatch: pytest.MonkeyPatch) -> None:
    """As with the default start method of Python 3.14; a script may have no `if __name__ == "__main__"`."""
    monkeypatch.setattr(multiprocessing.get_context("spawn").Process, "start", pytest.fail)
    previous = multiprocessing.get_start_method(allow_none=True)
    multiprocessing.set_start_method("spawn", force=True)
    try:
        assert len(list(waves_of(waves_from(clips, AUGMENT), BATCHES[:1], 1))) == 1
    finally:
        multiprocessing.set_start_method(previous, force=True)


@pytest.fixture
def shard(clips: list[Utterance], tmp_path: Path) -> Path:
    """The clips in a tar."""
    with tarfile.open(tmp_path / "shard.tar", "w") as archive:
        for clip in clips:
            archive.add(clip.audio_filepath, Path(clip.audio_filepath).name)
    return tmp_path / "shard.tar"


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("remote", [False, True])
def test_clips_of_a_shard_have_the_samples_of_the_files(
    clips: list[Utterance], shard: Path, workers: int, remote: bool
) -> None:
    """Also from a server that fails at times."""
    rng = random.Random(1)
    batches = [[rng.randrange(len(clips)) for _ in range(rng.randint(1, 3))] for _ in range(11)]
    with serve(shard.parent) as server:
        members = read_tar_index(f"{server.url}/shard.tar" if remote else shard)
        server.fail_every = 9
        moved = [replace(clip, audio_filepath=str(member)) for clip, member in zip(clips, members, strict=True)]
        made = list(waves_of(waves_from(moved, AUGMENT), batches, workers))
    for waves, same in zip(made, waves_of(waves_from(clips, AUGMENT), batches, 0), strict=True):
        for wave, expected in zip(waves, same, strict=True):
            assert np.array_equal(wave, expected)


@pytest.mark.parametrize("workers", [0, 1])
def test_the_next_batches_are_fetched_together(clips: list[Utterance], shard: Path, workers: int) -> None:
    with serve(shard.parent) as server:
        members = read_tar_index(f"{server.url}/shard.tar")
        server.delay, server.requests[:] = 0.05, []
        moved = [replace(clip, audio_filepath=str(member)) for clip, member in zip(clips, members, strict=True)]
        waves = waves_of(waves_from(moved, AUGMENT), [[index] for index in range(len(clips))], workers)
        assert len(list(waves)) == len(clips) and len(server.requests) == len(clips)
        assert server.most_active > 3


def test_a_clip_that_cannot_be_fetched_is_named_in_its_place(clips: list[Utterance], shard: Path) -> None:
    members = [str(member) for member in read_tar_index(shard)]
    gone = members[1].replace("shard.tar", "gone.tar")
    made = [
        replace(clip, audio_filepath=path) for clip, path in zip(clips, [members[0], gone, members[2]], strict=False)
    ]
    (waves,) = waves_of(waves_from(made, AUGMENT), [[0, 1, 2]], 0)
    assert waves[1] == Unreadable({clips[1].id: f"{gone}: no such file"})
    assert isinstance(waves[0], np.ndarray) and isinstance(waves[2], np.ndarray)
