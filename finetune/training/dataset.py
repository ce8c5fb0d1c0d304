"""The training clips: their prompts and targets, encoded once, and the clips that each epoch adds."""

import logging
from collections.abc import Collection, Iterator, Sequence
from functools import cached_property
from itertools import chain, islice, zip_longest
from pathlib import Path

import numpy as np
import torch
from numpy.typing import ArrayLike

from finetune.core.config import Recipe
from finetune.core.wording import count, verb
from finetune.data.audio import SAMPLE_RATE
from finetune.data.features import num_frames
from finetune.data.manifest import Utterance
from finetune.data.row_prompt import instruction_of
from finetune.data.utterance_table import as_table, joined_tables
from finetune.model.granite import SpeechModel
from finetune.model.prompt import Prompt
from finetune.training.clip_table import ClipTable
from finetune.training.encoded_text import (
    EncodedTexts,
    TextBlock,
    TextEncoder,
    encoded,
    encoded_texts,
    row_blocks,
    text_block,
)
from finetune.training.epoch_clips import EpochClips, epoch_clips, kinds_of
from finetune.training.keyword_prompts import keyword_prompts
from finetune.training.plan import Groups, Indices, Seconds

log = logging.getLogger(__name__)


class SpeechDataset:
    """The clips of train and replay, and what epochs add: concatenated and repeated clips, and clips without speech.

    A clip has an index: its row in train, then in replay; the clips that the open epochs add come after these.

    Args:
        model: its tokenizer and the sizes of its parts.
        recipe: the recipe.
        train: the utterances of train; best a table from `open_manifest`, of which processes share the pages.
        replay: those of replay.
        manifests: the files of train and replay, beside which the encoded texts are stored; without them, they are kept
            in memory.

    Attributes:
        counts: the number of clips of train and of replay.
        base: the utterances of train and replay.
        clips: all clips as utterances.
        seconds: (clips,) without speed perturbation.
        durations: (clips,) seconds at the slowest speed of the augmentation, which is the longest that a clip can be.
        target_counts: (clips,) target tokens, with the end-of-text token.
        positions: (clips,) language model positions: prompt, audio tokens and target. Those of sampled keywords, which
            are at most as many as counted, are in the clips of the open epoch only.
        open: the epoch whose added clips are among the clips; None for no or all epochs.
        unreadable: ids of utterances that are skipped because their audio cannot be read, see `UnreadableClips`.
    """

    def __init__(
        self,
        model: SpeechModel,
        recipe: Recipe,
        train: Sequence[Utterance],
        replay: Sequence[Utterance] = (),
        manifests: Sequence[Path] = (),
    ) -> None:
        self.model, self.recipe = model, recipe
        tables = [as_table(items) for items in (train, replay)]
        self.counts = (len(tables[0]), len(tables[1]))
        self.base = joined_tables(tables)
        self.encoder = TextEncoder(model.tokenizer, recipe.model.instruction, model.profile, model.num_ctc_labels)
        self.keywords = keyword_prompts(recipe, model.tokenizer, self.base)
        self._keywords = self.base.has_keywords and not self.keywords
        self._texts = EncodedTexts.joined(
            [
                encoded_texts(table, self.encoder, manifest, keywords=self._keywords)
                for table, manifest in zip_longest(tables, manifests)
                if table is not None
            ]
        )
        self.unreadable = set[str]()
        self.open: int | None = None
        self._samples_keywords = False
        self._add(Groups.of([]), np.zeros(0, np.int32), np.zeros(0))
        if recipe.train.ctc_weight:
            self._warn_about_ctc()

    def _add(self, groups: Groups, times: Indices, no_speech: Seconds) -> None:
        """Replaces the added clips: the rows of each, how often these have occurred, and the clips without speech."""
        base = self._texts
        rows = chain(self._joined_rows(groups), _empty_rows(len(no_speech)))
        added = EncodedTexts.of(encoded(rows, self.encoder))
        self.clips, self._added_texts = ClipTable(self.base, groups, times, no_speech), added
        self.target_counts = _appended(base.target, added.target)
        self._label_counts = _appended(base.labels, added.labels)
        self.seconds = self.clips.durations
        speed = self.recipe.augment.speed
        self.durations = self.seconds / (1.0 - speed) if speed else self.seconds
        frames = num_frames(np.rint(self.durations * SAMPLE_RATE).astype(np.int64))
        audio = self.model.num_audio_tokens(torch.from_numpy(frames)).numpy().astype(np.int32)
        self.positions: Indices = _appended(base.prompt, added.prompt) + audio + self.target_counts
        self._samples_keywords = False

    def _add_keywords(self, rows: Indices) -> None:
        """Samples the keywords of the open epoch for some rows and all added clips, and counts their positions."""
        if not self.keywords:
            return
        plain = self.positions.copy()  # a row can occur several times in `rows`
        self._room = min(self.model.max_positions, self.recipe.train.batch_tokens) - plain
        for numbers in row_blocks(len(rows)):
            block = rows[numbers]
            names, texts = self.base.pick("id", block), self.base.pick("text", block)
            for index, name, text in zip(block.tolist(), names, texts, strict=True):
                added = self.keywords.sample(name, text, self.open, int(self._room[index]))[1]
                self.positions[index] = plain[index] + added
        for index in range(len(self.base), len(self.clips)):
            clip = self.clips[index]
            self.positions[index] += self.keywords.sample(clip.id, clip.text, self.open, int(self._room[index]))[1]
        self._samples_keywords = True

    def _joined_rows(self, groups: Groups) -> Iterator[TextBlock]:
        """The texts of clips, each of several rows of one kind; see `concatenated` and `_kinds`."""
        for numbers in row_blocks(len(groups)):
            block = groups.select(numbers)
            words = iter(self.base.pick("text", block.members))
            texts = [" ".join(islice(words, size)) for size in block.sizes.tolist()]
            keywords: list[list[str]] = [[] for _ in texts]
            if self._keywords:
                lists = iter(self.base.pick("keywords", block.members))
                keywords = [[*dict.fromkeys(chain(*islice(lists, size)))] for size in block.sizes.tolist()]
            if self.base.has_prompts:
                first = text_block(self.base, block.members[block.bounds[:-1]], self.encoder)
                yield TextBlock(texts, keywords, first.instructions, first.spoken)
            else:
                yield TextBlock(texts, keywords)

    def _warn_about_ctc(self) -> None:
        """Logs the characters and the clips that the CTC loss ignores.

        A clip is ignored if it has too few frames for its text at the fastest speed of the augmentation.
        """
        if unknown_characters := int(self._texts.unknown.sum()):
            log.warning("%d characters are outside the CTC alphabet; CTC targets omit them", unknown_characters)
        fastest = SAMPLE_RATE / (1 + self.recipe.augment.speed)
        frames = num_frames(np.rint(self.base.durations * fastest).astype(np.int64))
        short = np.flatnonzero(self._texts.ctc_frames > frames)
        if len(short):
            log.warning(
                "%s more text than CTC can align to the audio; the CTC loss ignores %s (such as %s)",
                f"{count(len(short), 'clip')} {verb(len(short), 'has', 'have')}",
                verb(len(short), "it", "them"),
                self.base[int(short[0])].id,
            )

    @cached_property
    def _kinds(self) -> Indices:
        return kinds_of(self.base)

    def open_epoch(self, epoch: int) -> Indices:
        """Makes the added clips of an epoch, and returns the indices of all its clips.

        Each occurrence of a clip after the first one is a new clip, so that it is augmented differently. The clips that
        an earlier call has added are removed.
        """
        clips = self._epoch(epoch)
        self._add(clips.added, clips.occurrences, clips.no_speech)
        self.open = epoch
        self._add_keywords(clips.singles)
        return np.concatenate([clips.singles, np.arange(len(self.base), len(self.clips), dtype=np.int32)])

    def open_clips(self, groups: Sequence[Sequence[int]]) -> None:
        """Adds chosen clips, each of one or several rows, to the first epoch, instead of those that it has."""
        self._add(Groups.of(groups), np.ones(len(groups), np.int32), np.zeros(0))
        self.open = 0
        self._add_keywords(np.zeros(0, np.int32))

    def open_all_epochs(self) -> None:
        """Makes the added clips of all epochs; sampled keyword lists are the longest possible."""
        self.open = None
        epochs = [self._epoch(epoch) for epoch in range(self.recipe.train.epochs)]
        self._add(
            Groups.joined([clips.added for clips in epochs]),
            np.concatenate([clips.occurrences for clips in epochs]),
            np.concatenate([clips.no_speech for clips in epochs]),
        )
        self._add_keywords(np.arange(len(self.base), dtype=np.int32))

    def seconds_of_epoch(self, epoch: int) -> Seconds:
        """Seconds of the clips of an epoch, without speed perturbation; the open epoch stays open."""
        clips = self._epoch(epoch)
        durations = ClipTable(self.base, clips.added, clips.occurrences, clips.no_speech).durations
        return np.concatenate([durations[clips.singles], durations[len(self.base) :]])

    def _epoch(self, epoch: int) -> EpochClips:
        kinds: ArrayLike = self._kinds if self.recipe.augment.concat else []
        return epoch_clips(self.recipe, self.base, self.counts, kinds, epoch)

    def readable(self, indices: list[int], unreadable: Collection[str] | None = None) -> list[int]:
        """The clips of which no utterance is in `unreadable`, by default in that of this object."""
        skipped = self.unreadable if unreadable is None else unreadable
        if not skipped:
            return indices
        return [index for index in indices if not any(item.id in skipped for item in self.clips.sources(index))]

    def prompt(self, index: int) -> Prompt:
        """The prompt of a clip."""
        if not (self._keywords or self._samples_keywords or self.base.has_prompts):
            return self.encoder.prompt()
        clip = self.clips[index]
        instruction = instruction_of(clip, self.encoder.instruction, self.encoder.profile)
        if self.keywords and self._samples_keywords:
            words, _ = self.keywords.sample(clip.id, clip.text, self.open, int(self._room[index]))
            return self.encoder.new_prompt(words, instruction)
        return self.encoder.prompt(clip.keywords if self._keywords else (), instruction)

    def target(self, index: int) -> list[int]:
        """The tokens of a clip's text, with the end-of-text token."""
        added = index - len(self.base)
        return self._added_texts.target_of(added) if added >= 0 else self._texts.target_of(index)

    def tokens(self, indices: list[int]) -> int:
        """The number of target tokens of clips, with the end-of-text token."""
        return int(self.target_counts[np.asarray(indices, np.int64)].sum())

    def labels(self, indices: list[int]) -> int:
        """The number of CTC labels of clips."""
        return int(self._label_counts[np.asarray(indices, np.int64)].sum())


def _empty_rows(count: int) -> Iterator[TextBlock]:
    """The texts of clips without speech."""
    for numbers in row_blocks(count):
        yield TextBlock([""] * len(numbers), [[]] * len(numbers))


def _appended(base: Indices, added: Indices) -> Indices:
    return np.concatenate([base, added]) if len(added) else base
