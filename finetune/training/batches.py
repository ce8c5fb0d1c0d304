"""The source of micro-batches: audio that is decoded and augmented, or the cached output of the frozen encoder."""

import logging
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from itertools import tee
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from finetune.core.config import Recipe
from finetune.core.errors import DataError
from finetune.core.wording import count
from finetune.data.audio import SAMPLE_RATE, load_utterance
from finetune.data.features import num_frames
from finetune.data.manifest import Utterance
from finetune.training.augment import WaveAugment
from finetune.training.collate import Batch, MicroAudio, batch_from_audio, batch_from_waves
from finetune.training.dataset import SpeechDataset
from finetune.training.effects import Effects
from finetune.training.encoder_cache import StateCache, cache_key, cached_states, predicted_bytes
from finetune.training.plan import plan_epoch
from finetune.training.sampler import Clips, waves_of

log = logging.getLogger(__name__)


class BatchSource:
    """Creates the micro-batches of a plan in order: features from audio, or cached output of the frozen encoder."""

    def __init__(self, data: SpeechDataset, recipe: Recipe, cache: Path, base: str, verbose: bool) -> None:
        """Opens the cache if `machine.cache_encoder` is set.

        Args:
            data: the clips.
            recipe: the recipe.
            cache: folder of the cache.
            base: fingerprint of the base weights.
            verbose: log the size of the cache.
        """
        self.data, self.recipe = data, recipe
        self.kind = "features"
        self.effects = Effects.of(recipe.augment, recipe.seed)
        self.states: StateCache | None = None
        if recipe.machine.cache_encoder:
            self.kind = "embeds" if recipe.parts.projector.mode == "frozen" else "states"
            self.states = self._open_cache(cache, base, verbose)

    def audio(self, plan: Iterable[list[int]], epoch: int) -> Iterator[MicroAudio]:
        """The audio of the micro-batches of `plan`, each a list of clip indices; `epoch` must be open in `data`."""
        if self.states is not None:
            for chosen in plan:
                rows = map(self.data.clips.row, chosen)
                yield MicroAudio(chosen, [self.states[row] for row in rows], self.kind, epoch)
            return
        augment = self.recipe.augment
        ranges = WaveAugment(augment.speed, augment.gain_db, augment.noise_db)
        clips = Clips(self.data.clips, ranges, self.recipe.seed, epoch, self.effects)
        plan, ahead = tee(plan)  # workers load some batches ahead
        for chosen, waves in zip(plan, waves_of(clips, ahead, self.recipe.machine.workers), strict=True):
            yield MicroAudio(chosen, waves, self.kind, epoch)

    def batches(self, plan: Iterable[list[int]], epoch: int) -> Iterator[Batch]:
        """The micro-batches of `plan`; see `batch_from_audio`."""
        return map(partial(batch_from_audio, self.data), self.audio(plan, epoch))

    def unreadable(self) -> dict[str, str]:
        """By utterance id: why its audio could not be read when the cache was built. Empty without a cache."""
        if self.states is None:
            return {}
        advice = "could not be read when the encoder's output was cached; delete the folder cache/ to read it again"
        items = (self.data.base[row] for row in np.flatnonzero(self.states.frames == 0).tolist())
        return {item.id: f"{item.audio_filepath}: {advice}" for item in items}

    def _open_cache(self, folder: Path, base: str, verbose: bool) -> StateCache:
        model, clips = self.data.model, self.data.base
        width = model.lm_head.in_features if self.kind == "embeds" else model.encoder.input_linear.out_features
        dtype = model.encoder.input_linear.weight.dtype
        lengths = torch.from_numpy(num_frames(np.rint(clips.durations * SAMPLE_RATE).astype(np.int64)))
        frames = model.num_audio_tokens(lengths) if self.kind == "embeds" else lengths
        if verbose:
            log.info(
                "caching the encoder's output of %s: %.2f GB in %s",
                count(len(clips), "clip"),
                predicted_bytes(int(frames.sum()), width, dtype) / 1e9,
                folder,
            )

        @torch.inference_mode()
        def encode(chosen: Sequence[int]) -> list[Tensor]:
            """The states of each clip; none for a clip whose audio cannot be read."""
            waves = {index: wave for index in chosen if (wave := _wave_or_none(clips[index])) is not None}
            if not waves:
                return [torch.zeros(0, width) for _ in chosen]
            batch = batch_from_waves(self.data, [*waves], [*waves.values()], 0)
            audio = model.encode(batch.audio, batch.num_frames)
            rows, counts = (
                (audio.embeds, audio.num_tokens) if self.kind == "embeds" else (audio.states, audio.num_frames)
            )
            states = {i: row[:count] for i, row, count in zip(waves, rows, counts.tolist(), strict=True)}
            return [states.get(index, rows[0, :0]) for index in chosen]

        plan = plan_epoch(
            self.data.durations,
            self.data.positions,
            self.recipe.train.batch_seconds,
            self.recipe.train.batch_tokens,
            1,
            self.recipe.seed,
            0,
            range(len(clips)),
        )
        batches = (batch for step in plan for batch in step)
        return cached_states(folder, cache_key(f"{base}/{self.kind}", clips), dtype, batches, encode)


def repeatable(audio: Iterator[MicroAudio], loaded: list[MicroAudio]) -> Iterator[MicroAudio]:
    """What an earlier call has put into `loaded`, then the rest of `audio`, which is put there too."""
    yield from list(loaded)
    for micro in audio:
        loaded.append(micro)
        yield micro


def _wave_or_none(item: Utterance) -> np.ndarray | None:
    try:
        return load_utterance(item)
    except DataError:
        return None
