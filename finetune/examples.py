"""The train manifest as tensors: prompts, targets and CTC labels made once, audio on demand or from a cache."""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from finetune.config import Recipe
from finetune.data.audio import SAMPLE_RATE, load_audio
from finetune.data.augment import WaveAugment, mask_features, sample_rng
from finetune.data.features import log_mel, num_frames, pad_features
from finetune.data.loader import Clips, plan_epoch, waves_of
from finetune.data.manifest import Utterance
from finetune.data.states import StateCache, cache_key, cached_states, predicted_bytes
from finetune.model.ctc import to_labels
from finetune.model.granite import GraniteSpeech
from finetune.model.prompt import encode_text, render
from finetune.training.loss import IGNORE

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Batch:
    """A micro-batch: padded audio (B, T, D) of `kind`, its frames (B,), ids and labels (B, L), CTC labels."""

    kind: str
    audio: Tensor
    num_frames: Tensor
    ids: Tensor
    labels: Tensor
    characters: list[list[int]]


class Examples:
    """All clips that training may hear: first those of train, then those of replay."""

    def __init__(self, model: GraniteSpeech, recipe: Recipe, utterances: list[Utterance]) -> None:
        self.model, self.recipe, self.utterances = model, recipe, utterances
        tokenizer = model.tokenizer
        self.prompts = [render(tokenizer, recipe.model.instruction, item.keywords) for item in utterances]
        self.targets = [[*encode_text(tokenizer, item.text), tokenizer.eos_token_id] for item in utterances]
        labels = [to_labels(item.text) for item in utterances]
        self.characters = [known for known, _ in labels]
        lost = sum(missing for _, missing in labels)
        if lost and recipe.train.ctc_weight:
            log.warning("%d characters are outside the CTC alphabet and left out of its targets", lost)
        # The longest that augmentation can make a clip: batches must hold it.
        self.durations = [item.duration / (1.0 - recipe.augment.speed) for item in utterances]
        frames = torch.tensor([num_frames(round(seconds * SAMPLE_RATE)) for seconds in self.durations])
        audio = model.num_audio_tokens(frames).tolist()
        self.positions = [len(prompt.around(model.audio_token_id, count)) + len(target)
                          for prompt, count, target in zip(self.prompts, audio, self.targets, strict=True)]

    def tokens(self, indices: list[int]) -> int:
        """Target tokens of clips, the end of text included."""
        return sum(len(self.targets[index]) for index in indices)

    def labels(self, indices: list[int]) -> int:
        """Characters of clips that the CTC loss is taken over."""
        return sum(len(self.characters[index]) for index in indices)

    def batch(self, indices: list[int], waves: list[np.ndarray], epoch: int) -> Batch:
        """A micro-batch from waveforms, each clip's features its own before padding."""
        masks, made = self.recipe.augment, []
        for index, wave in zip(indices, waves, strict=True):
            item = log_mel(torch.from_numpy(wave).to(self.model.device))
            if masks.mel_mask or masks.time_mask:
                rng = sample_rng(self.recipe.seed, epoch, self.utterances[index].id + "/mask")
                item = mask_features(item, masks.mel_mask, masks.time_mask, rng)
            made.append(item)
        features, frames = pad_features(made)
        return self._with_text(indices, "features", features, frames, self.model.num_audio_tokens(frames))

    def cached(self, indices: list[int], kind: str, rows: list[Tensor]) -> Batch:
        """A micro-batch from cached encoder states (T, D) or audio embeddings (A, H) of each clip."""
        device = self.model.device
        lengths = torch.tensor([len(row) for row in rows], device=device)
        audio = torch.nn.utils.rnn.pad_sequence([row.to(device, non_blocking=True) for row in rows], True)
        counts = self.model.num_audio_tokens(lengths) if kind == "states" else lengths
        return self._with_text(indices, kind, audio, lengths, counts)

    def _with_text(self, indices: list[int], kind: str, audio: Tensor, frames: Tensor, counts: Tensor) -> Batch:
        pad, device = torch.nn.utils.rnn.pad_sequence, self.model.device
        ids, labels = [], []
        for index, count in zip(indices, counts.tolist(), strict=True):
            before = self.prompts[index].around(self.model.audio_token_id, count)
            ids.append(torch.tensor(before + self.targets[index]))
            labels.append(torch.tensor([IGNORE] * len(before) + self.targets[index]))
        return Batch(kind, audio, frames, pad(ids, True, 0).to(device), pad(labels, True, IGNORE).to(device),
                     [self.characters[index] for index in indices])


class Feed:
    """Gives micro-batches in a plan's order: features made from audio, or the frozen encoder's output from a cache."""

    def __init__(self, data: Examples, recipe: Recipe, cache: Path, base: str, shown: bool) -> None:
        """`cache` is the folder for cached states, `base` the fingerprint of the base's weights."""
        self.data, self.recipe = data, recipe
        self.kind = "features"
        self.states: StateCache | None = None
        if recipe.machine.cache_encoder:
            self.kind = "embeds" if recipe.parts.projector.mode == "frozen" else "states"
            self.states = self._cached(cache, base, shown)

    def batches(self, plan: list[list[int]], epoch: int) -> Iterator[Batch]:
        """The micro-batches of `plan`, each a list of clip indices."""
        if self.states is not None:
            for chosen in plan:
                yield self.data.cached(chosen, self.kind, [self.states[index] for index in chosen])
            return
        augment = self.recipe.augment
        ranges = WaveAugment(augment.speed, augment.gain_db, augment.noise_db)
        clips = Clips(self.data.utterances, ranges, self.recipe.seed, epoch)
        for chosen, waves in zip(plan, waves_of(clips, plan, self.recipe.machine.workers), strict=True):
            yield self.data.batch(chosen, waves, epoch)

    def _cached(self, folder: Path, base: str, shown: bool) -> StateCache:
        model, clips = self.data.model, self.data.utterances
        width = model.lm_head.in_features if self.kind == "embeds" else model.encoder.input_linear.out_features
        dtype = model.lm_head.weight.dtype
        lengths = torch.tensor([num_frames(round(item.duration * SAMPLE_RATE)) for item in clips])
        frames = (model.num_audio_tokens(lengths) if self.kind == "embeds" else lengths).tolist()
        if shown:
            log.info("the encoder's output of %d clips is cached: %.2f GB in %s", len(clips),
                     predicted_bytes(frames, width, dtype) / 1e9, folder)

        @torch.inference_mode()
        def encode(chosen: Sequence[int]) -> list[Tensor]:
            waves = [load_audio(clips[i].audio_filepath, clips[i].offset, clips[i].duration) for i in chosen]
            batch = self.data.batch(list(chosen), waves, 0)
            audio = model.listen(batch.audio, batch.num_frames)
            rows, counts = ((audio.embeds, audio.num_tokens) if self.kind == "embeds"
                            else (audio.states, audio.num_frames))
            return [row[:count] for row, count in zip(rows, counts.tolist(), strict=True)]

        durations = self.data.durations
        plan = plan_epoch(durations, self.data.positions, self.recipe.train.batch_seconds,
                          self.recipe.train.batch_tokens, 1, self.recipe.seed, 0, range(len(clips)))
        return cached_states(folder, cache_key(f"{base}/{self.kind}", clips), dtype,
                             [batch for step in plan for batch in step], encode)
