"""The training clips as tensors: prompts, targets and CTC labels are encoded once, audio is loaded on demand."""

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from finetune.core.config import Recipe
from finetune.data.audio import SAMPLE_RATE
from finetune.data.features import log_mel, num_frames
from finetune.data.manifest import Utterance, concatenated
from finetune.model.ctc import frames_needed, to_labels
from finetune.model.granite import SpeechModel
from finetune.model.prompt import Prompt, encode_text, render
from finetune.training.augment import mask_features, sample_rng
from finetune.training.loss import IGNORE
from finetune.training.sampler import Audio, Unreadable, concat_utterances, sample_replay

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
        silent: it has no clip, only silence: its loss has weight 0.
        unreadable: by utterance id, why the audio of some clips, which are not in this batch, cannot be read.
    """

    kind: str
    audio: Tensor
    num_frames: Tensor
    ids: Tensor
    labels: Tensor
    characters: list[list[int]]
    silent: bool = False
    unreadable: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class MicroAudio:
    """The audio of a micro-batch: by clip a waveform (N,), cached output of the encoder, or why it cannot be read.

    `kind` is that of `Batch`; `epoch` seeds the masks.
    """

    indices: list[int]
    audio: Sequence[Audio | Tensor]
    kind: str
    epoch: int


class SpeechDataset:
    """The clips of train and replay, and the concatenated and repeated clips that epochs add.

    Attributes:
        utterances: one per clip; the other lists have the same order.
        sources: the utterances of a clip; several if clips are concatenated.
        durations: seconds at the slowest speed of the augmentation, which is the longest that a clip can be.
        positions: number of language model positions: prompt, audio tokens and target.
        unreadable: ids of utterances that are skipped because their audio cannot be read, see `UnreadableClips`.
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
        self.unreadable = set[str]()
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

    def readable(self, indices: list[int]) -> list[int]:
        """The clips of which no utterance is in `unreadable`."""
        if not self.unreadable:
            return indices
        return [index for index in indices if self.unreadable.isdisjoint(item.id for item in self.sources[index])]

    def from_audio(self, micro: MicroAudio) -> Batch:
        """The batch of the readable clips. Without one it is silence, so that every rank runs forward and backward."""
        chosen, rows, reasons = list[int](), list[Any](), dict[str, str]()
        for index, audio in zip(micro.indices, micro.audio, strict=True):
            if isinstance(audio, Unreadable):
                reasons |= {name: why for name, why in audio.reasons.items() if name not in self.unreadable}
            elif self.readable([index]):
                chosen.append(index)
                rows.append(audio)
        if not chosen:
            return replace(self.silence(), unreadable=reasons)
        features = micro.kind == "features"
        batch = self.batch(chosen, rows, micro.epoch) if features else self.cached(chosen, micro.kind, rows)
        return replace(batch, unreadable=reasons) if reasons else batch

    def silence(self) -> Batch:
        """A batch of half a second of silence."""
        return replace(self.batch([0], [np.zeros(SAMPLE_RATE // 2, np.float32)], 0), silent=True)

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
