"""The train manifest as tensors: prompts, targets and CTC labels made once, audio on demand or from a cache."""

import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from finetune.core.config import Recipe
from finetune.data.audio import SAMPLE_RATE, load_audio
from finetune.data.features import log_mel, num_frames
from finetune.data.manifest import Utterance, concatenated
from finetune.model.ctc import frames_needed, to_labels
from finetune.model.granite import GraniteSpeech
from finetune.model.prompt import Prompt, encode_text, render
from finetune.training.augment import WaveAugment, mask_features, sample_rng
from finetune.training.encoder_cache import StateCache, cache_key, cached_states, predicted_bytes
from finetune.training.loss import IGNORE
from finetune.training.sampler import Clips, concat_utterances, plan_epoch, sample_replay, waves_of

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


class SpeechDataset:
    """All that training may hear: the clips of train, those of replay, and what the epochs make of them."""

    def __init__(
        self, model: GraniteSpeech, recipe: Recipe, train: list[Utterance], replay: Sequence[Utterance] = ()
    ) -> None:
        self.model, self.recipe = model, recipe
        self.counts = (len(train), len(replay))
        self.utterances: list[Utterance] = []
        self.spoken: list[tuple[Utterance, ...]] = []  # the clips that each is made of
        self.prompts: list[Prompt] = []
        self.targets: list[list[int]] = []
        self.characters: list[list[int]] = []
        self.durations: list[float] = []  # the longest that augmentation can make them: batches must hold it
        self.positions: list[int] = []
        lost = self._add([(item, (item,)) for item in [*train, *replay]])
        if recipe.train.ctc_weight:
            self._say_what_ctc_leaves_out(lost)

    def _add(self, items: list[tuple[Utterance, tuple[Utterance, ...]]]) -> int:
        """More to hear; returns how many characters are outside the CTC alphabet."""
        tokenizer, first = self.model.tokenizer, len(self.utterances)
        utterances = [item for item, _ in items]
        self.utterances += utterances
        self.spoken += [clips for _, clips in items]
        self.prompts += [render(tokenizer, self.recipe.model.instruction, item.keywords) for item in utterances]
        self.targets += [[*encode_text(tokenizer, item.text), tokenizer.eos_token_id] for item in utterances]
        labels = [to_labels(item.text) for item in utterances]
        self.characters += [known for known, _ in labels]
        self.durations += [item.duration / (1.0 - self.recipe.augment.speed) for item in utterances]
        frames = torch.tensor([num_frames(round(seconds * SAMPLE_RATE)) for seconds in self.durations[first:]])
        audio = self.model.num_audio_tokens(frames).tolist()
        self.positions += [
            len(prompt.around(self.model.audio_token_id, count)) + len(target)
            for prompt, count, target in zip(self.prompts[first:], audio, self.targets[first:], strict=True)
        ]
        return sum(missing for _, missing in labels)

    def _say_what_ctc_leaves_out(self, lost: int) -> None:
        """Of characters, `lost`; and of clips, those that have too few frames for their text at the fastest speed."""
        if lost:
            log.warning("%d characters are outside the CTC alphabet and left out of its targets", lost)
        fastest = SAMPLE_RATE / (1 + self.recipe.augment.speed)
        short = [
            item.id
            for item, labels in zip(self.utterances, self.characters, strict=True)
            if frames_needed(labels) > num_frames(round(item.duration * fastest))
        ]
        if short:
            log.warning(
                "%d clips are spoken too fast for the CTC loss, which leaves them out (such as %s)",
                len(short),
                short[0],
            )

    def epoch_clips(self, epoch: int) -> list[int]:
        """The clips of an epoch. Concatenated or repeated clips are added as new ones.

        So a clip heard twice is augmented twice.
        """
        recipe = self.recipe
        chosen = sample_replay(*self.counts, recipe.data.replay_weight, recipe.seed, epoch)
        if recipe.machine.cache_encoder:  # nothing is augmented
            return chosen
        groups = concat_utterances(
            chosen,
            [item.duration for item in self.utterances],
            [item.language for item in self.utterances],
            recipe.augment.concat,
            recipe.data.max_duration,
            recipe.seed,
            epoch,
        )
        times, once, new = Counter[tuple[int, ...]](), [], []
        for group in groups:
            times[group] += 1
            if len(group) == times[group] == 1:
                once.append(group[0])
            else:
                clips = tuple(self.utterances[index] for index in group)
                new.append((concatenated(clips, times[group]), clips))
        first = len(self.utterances)
        self._add(new)
        return [*once, *range(first, len(self.utterances))]

    def tokens(self, indices: list[int]) -> int:
        """Target tokens of clips, the end of text included."""
        return sum(len(self.targets[index]) for index in indices)

    def labels(self, indices: list[int]) -> int:
        """Characters of clips that the CTC loss is taken over."""
        return sum(len(self.characters[index]) for index in indices)

    def batch(self, indices: list[int], waves: list[np.ndarray], epoch: int) -> Batch:
        """A micro-batch from waveforms, each clip's features its own before padding."""
        masks, made = self.recipe.augment, []
        heard = torch.split(self._moved(torch.from_numpy(np.concatenate(waves))), [len(wave) for wave in waves])
        for index, wave in zip(indices, heard, strict=True):
            item = log_mel(wave)
            if masks.mel_mask or masks.time_mask:
                rng = sample_rng(self.recipe.seed, epoch, self.utterances[index].id + "/mask")
                item = mask_features(item, masks.mel_mask, masks.time_mask, rng)
            made.append(item)
        return self._with_text(indices, "features", pad_sequence(made, True), [len(item) for item in made])

    def cached(self, indices: list[int], kind: str, rows: list[Tensor]) -> Batch:
        """A micro-batch from cached encoder states (T, D) or audio embeddings (A, H) of each clip."""
        return self._with_text(indices, kind, self._moved(pad_sequence(rows, True)), [len(row) for row in rows])

    def _with_text(self, indices: list[int], kind: str, audio: Tensor, lengths: list[int]) -> Batch:
        frames, ids, labels = torch.tensor(lengths), [], []
        counts = frames if kind == "embeds" else self.model.num_audio_tokens(frames)
        for index, count in zip(indices, counts.tolist(), strict=True):
            before = self.prompts[index].around(self.model.audio_token_id, count)
            ids.append(torch.tensor(before + self.targets[index]))
            labels.append(torch.tensor([IGNORE] * len(before) + self.targets[index]))
        return Batch(
            kind,
            audio,
            self._moved(frames),
            self._moved(pad_sequence(ids, True, 0)),
            self._moved(pad_sequence(labels, True, IGNORE)),
            [self.characters[index] for index in indices],
        )

    def _moved(self, value: Tensor) -> Tensor:
        """On the model's device. From pinned memory the copy waits for nothing that runs there."""
        device = self.model.device
        return (value.pin_memory() if device.type == "cuda" else value).to(device, non_blocking=True)


class BatchSource:
    """Gives micro-batches in a plan's order: features made from audio, or the frozen encoder's output from a cache."""

    def __init__(self, data: SpeechDataset, recipe: Recipe, cache: Path, base: str, shown: bool) -> None:
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
        clips = Clips([item.id for item in self.data.utterances], self.data.spoken, ranges, self.recipe.seed, epoch)
        for chosen, waves in zip(plan, waves_of(clips, plan, self.recipe.machine.workers), strict=True):
            yield self.data.batch(chosen, waves, epoch)

    def _cached(self, folder: Path, base: str, shown: bool) -> StateCache:
        model, clips = self.data.model, self.data.utterances
        width = model.lm_head.in_features if self.kind == "embeds" else model.encoder.input_linear.out_features
        dtype = model.encoder.input_linear.weight.dtype
        lengths = torch.tensor([num_frames(round(item.duration * SAMPLE_RATE)) for item in clips])
        frames = (model.num_audio_tokens(lengths) if self.kind == "embeds" else lengths).tolist()
        if shown:
            log.info(
                "the encoder's output of %d clips is cached: %.2f GB in %s",
                len(clips),
                predicted_bytes(frames, width, dtype) / 1e9,
                folder,
            )

        @torch.inference_mode()
        def encode(chosen: Sequence[int]) -> list[Tensor]:
            waves = [load_audio(clips[i].audio_filepath, clips[i].offset, clips[i].duration) for i in chosen]
            batch = self.data.batch(list(chosen), waves, 0)
            audio = model.encode(batch.audio, batch.num_frames)
            rows, counts = (
                (audio.embeds, audio.num_tokens) if self.kind == "embeds" else (audio.states, audio.num_frames)
            )
            return [row[:count] for row, count in zip(rows, counts.tolist(), strict=True)]

        durations = self.data.durations
        plan = plan_epoch(
            durations,
            self.data.positions,
            self.recipe.train.batch_seconds,
            self.recipe.train.batch_tokens,
            1,
            self.recipe.seed,
            0,
            range(len(clips)),
        )
        return cached_states(
            folder, cache_key(f"{base}/{self.kind}", clips), dtype, [batch for step in plan for batch in step], encode
        )
