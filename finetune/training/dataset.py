"""The training clips as tensors: prompts, targets and CTC labels are encoded once, audio is loaded on demand."""

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
from finetune.data.audio import SAMPLE_RATE, load_utterance
from finetune.data.features import log_mel, num_frames
from finetune.data.manifest import Utterance, concatenated
from finetune.model.ctc import frames_needed, to_labels
from finetune.model.granite import SpeechModel
from finetune.model.prompt import Prompt, encode_text, render
from finetune.training.augment import WaveAugment, mask_features, sample_rng
from finetune.training.encoder_cache import StateCache, cache_key, cached_states, predicted_bytes
from finetune.training.loss import IGNORE
from finetune.training.sampler import Clips, concat_utterances, plan_epoch, sample_replay, waves_of

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Batch:
    """A micro-batch of padded tensors.

    Attributes:
        kind: type of `audio`: features, states (the encoder's output) or embeds (the projector's output).
        audio: (B, T, D), or (B, A, H) for embeds.
        num_frames: (B,) rows of `audio` without padding.
        ids: (B, L) token ids of prompt and target.
        labels: (B, L) token ids of the target, `IGNORE` elsewhere.
        characters: CTC labels of each clip.
    """

    kind: str
    audio: Tensor
    num_frames: Tensor
    ids: Tensor
    labels: Tensor
    characters: list[list[int]]


class SpeechDataset:
    """The clips of train and replay, and the concatenated and repeated clips that epochs add.

    Attributes:
        utterances: one per clip; the other lists have the same order.
        sources: the utterances of a clip; several if clips are concatenated.
        durations: seconds at the slowest speed of the augmentation, which is the longest that a clip can be.
        positions: number of language model positions: prompt, audio tokens and target.
    """

    def __init__(
        self, model: SpeechModel, recipe: Recipe, train: list[Utterance], replay: Sequence[Utterance] = ()
    ) -> None:
        self.model, self.recipe = model, recipe
        self.counts = (len(train), len(replay))
        self.utterances: list[Utterance] = []
        self.sources: list[tuple[Utterance, ...]] = []
        self.prompts: list[Prompt] = []
        self.targets: list[list[int]] = []
        self.characters: list[list[int]] = []
        self.durations: list[float] = []
        self.positions: list[int] = []
        unknown_characters = self._add([(item, (item,)) for item in [*train, *replay]])
        if recipe.train.ctc_weight:
            self._warn_about_ctc(unknown_characters)

    def _add(self, items: list[tuple[Utterance, tuple[Utterance, ...]]]) -> int:
        """Adds clips with their source utterances; returns the number of characters outside the CTC alphabet."""
        tokenizer, num_existing = self.model.tokenizer, len(self.utterances)
        utterances = [item for item, _ in items]
        self.utterances += utterances
        self.sources += [clips for _, clips in items]
        self.prompts += [render(tokenizer, self.recipe.model.instruction, item.keywords) for item in utterances]
        self.targets += [[*encode_text(tokenizer, item.text), tokenizer.eos_token_id] for item in utterances]
        labels = [to_labels(item.text) for item in utterances]
        self.characters += [clip_labels for clip_labels, _ in labels]
        self.durations += [item.duration / (1.0 - self.recipe.augment.speed) for item in utterances]
        frames = torch.tensor([num_frames(round(seconds * SAMPLE_RATE)) for seconds in self.durations[num_existing:]])
        audio = self.model.num_audio_tokens(frames).tolist()
        self.positions += [
            len(prompt.around(self.model.audio_token_id, count)) + len(target)
            for prompt, count, target in zip(
                self.prompts[num_existing:], audio, self.targets[num_existing:], strict=True
            )
        ]
        return sum(num_unknown for _, num_unknown in labels)

    def _warn_about_ctc(self, unknown_characters: int) -> None:
        """Logs the characters and the clips that the CTC loss ignores.

        A clip is ignored if it has too few frames for its text at the fastest speed of the augmentation.
        """
        if unknown_characters:
            log.warning("%d characters are outside the CTC alphabet; CTC targets omit them", unknown_characters)
        fastest = SAMPLE_RATE / (1 + self.recipe.augment.speed)
        short = [
            item.id
            for item, labels in zip(self.utterances, self.characters, strict=True)
            if frames_needed(labels) > num_frames(round(item.duration * fastest))
        ]
        if short:
            log.warning(
                "%d clips have more text than CTC can align to their audio; the CTC loss ignores them (such as %s)",
                len(short),
                short[0],
            )

    def epoch_clips(self, epoch: int) -> list[int]:
        """The indices of an epoch's clips. Concatenated and repeated clips are added as new clips.

        So two occurrences of a clip are augmented differently.
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
        times, unchanged, added = Counter[tuple[int, ...]](), [], []
        for group in groups:
            times[group] += 1
            if len(group) == times[group] == 1:
                unchanged.append(group[0])
            else:
                clips = tuple(self.utterances[index] for index in group)
                added.append((concatenated(clips, times[group]), clips))
        num_existing = len(self.utterances)
        self._add(added)
        return [*unchanged, *range(num_existing, len(self.utterances))]

    def tokens(self, indices: list[int]) -> int:
        """The number of target tokens of clips, with the end-of-text token."""
        return sum(len(self.targets[index]) for index in indices)

    def labels(self, indices: list[int]) -> int:
        """The number of CTC labels of clips."""
        return sum(len(self.characters[index]) for index in indices)

    def batch(self, indices: list[int], waves: list[np.ndarray], epoch: int) -> Batch:
        """A micro-batch from waveforms (N,) of each clip. Features are computed before padding, clip by clip."""
        augment, features = self.recipe.augment, []
        # One transfer for all waveforms.
        on_device = torch.split(self._to_device(torch.from_numpy(np.concatenate(waves))), [len(wave) for wave in waves])
        for index, wave in zip(indices, on_device, strict=True):
            clip_features = log_mel(wave)
            if augment.mel_mask or augment.time_mask:
                rng = sample_rng(self.recipe.seed, epoch, self.utterances[index].id + "/mask")
                clip_features = mask_features(clip_features, augment.mel_mask, augment.time_mask, rng)
            features.append(clip_features)
        return self._with_text(indices, "features", pad_sequence(features, True), [len(item) for item in features])

    def cached(self, indices: list[int], kind: str, rows: list[Tensor]) -> Batch:
        """A micro-batch from cached encoder states (T, D) or audio embeddings (A, H) of each clip."""
        return self._with_text(indices, kind, self._to_device(pad_sequence(rows, True)), [len(row) for row in rows])

    def _with_text(self, indices: list[int], kind: str, audio: Tensor, lengths: list[int]) -> Batch:
        frames, ids, labels = torch.tensor(lengths), [], []
        counts = frames if kind == "embeds" else self.model.num_audio_tokens(frames)
        for index, count in zip(indices, counts.tolist(), strict=True):
            prompt = self.prompts[index].around(self.model.audio_token_id, count)
            ids.append(torch.tensor(prompt + self.targets[index]))
            labels.append(torch.tensor([IGNORE] * len(prompt) + self.targets[index]))
        return Batch(
            kind,
            audio,
            self._to_device(frames),
            self._to_device(pad_sequence(ids, True, 0)),
            self._to_device(pad_sequence(labels, True, IGNORE)),
            [self.characters[index] for index in indices],
        )

    def _to_device(self, value: Tensor) -> Tensor:
        """Copies to the model's device; to a GPU from pinned memory, so the copy does not wait for its kernels."""
        device = self.model.device
        return (value.pin_memory() if device.type == "cuda" else value).to(device, non_blocking=True)


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
        self.states: StateCache | None = None
        if recipe.machine.cache_encoder:
            self.kind = "embeds" if recipe.parts.projector.mode == "frozen" else "states"
            self.states = self._open_cache(cache, base, verbose)

    def batches(self, plan: list[list[int]], epoch: int) -> Iterator[Batch]:
        """The micro-batches of `plan`, each a list of clip indices."""
        if self.states is not None:
            for chosen in plan:
                yield self.data.cached(chosen, self.kind, [self.states[index] for index in chosen])
            return
        augment = self.recipe.augment
        ranges = WaveAugment(augment.speed, augment.gain_db, augment.noise_db)
        clips = Clips([item.id for item in self.data.utterances], self.data.sources, ranges, self.recipe.seed, epoch)
        for chosen, waves in zip(plan, waves_of(clips, plan, self.recipe.machine.workers), strict=True):
            yield self.data.batch(chosen, waves, epoch)

    def _open_cache(self, folder: Path, base: str, verbose: bool) -> StateCache:
        model, clips = self.data.model, self.data.utterances
        width = model.lm_head.in_features if self.kind == "embeds" else model.encoder.input_linear.out_features
        dtype = model.encoder.input_linear.weight.dtype
        lengths = torch.tensor([num_frames(round(item.duration * SAMPLE_RATE)) for item in clips])
        frames = (model.num_audio_tokens(lengths) if self.kind == "embeds" else lengths).tolist()
        if verbose:
            log.info(
                "caching the encoder's output of %d clips: %.2f GB in %s",
                len(clips),
                predicted_bytes(frames, width, dtype) / 1e9,
                folder,
            )

        @torch.inference_mode()
        def encode(chosen: Sequence[int]) -> list[Tensor]:
            waves = [load_utterance(clips[i]) for i in chosen]
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
