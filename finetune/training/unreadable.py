"""Clips whose audio can no longer be read: they are skipped from then on, up to `data.max_bad_fraction` of a split.

Their ids are part of the training state. So a resumed run skips the same clips, even if a file has come back.
"""

import logging
from collections.abc import Mapping, Sequence

from finetune.core.errors import DataError
from finetune.core.wording import first_of
from finetune.data.manifest import Utterance
from finetune.data.splits import TRAINING_SPLITS
from finetune.data.utterance_table import as_table
from finetune.training.callbacks import SkippedClip, TrainerCallback

log = logging.getLogger(__name__)

SHOWN = 3  # clips that an error message lists


class UnreadableClips:
    """The skipped clips of a run.

    Args:
        splits: the utterances of each split.
        max_fraction: `data.max_bad_fraction`.
        reasons: by split and id, why the audio cannot be read; changed in place.

    Attributes:
        trained: ids of the skipped clips of train and replay.
    """

    def __init__(
        self, splits: Mapping[str, Sequence[Utterance]], max_fraction: float, reasons: dict[str, dict[str, str]]
    ) -> None:
        self.splits = {split: as_table(items) for split, items in splits.items()}
        self.max_fraction, self.reasons = max_fraction, reasons
        self.trained = {name for split in TRAINING_SPLITS for name in reasons.get(split, {})}
        self.unreported: list[tuple[str, str]] = []  # split and id

    def add(self, causes: Mapping[str, str], *splits: str) -> None:
        """Adds clips of some splits, by default of train and replay.

        Args:
            causes: by id, why the audio cannot be read.
            splits: the splits that these ids belong to.

        Raises:
            DataError: more than `data.max_bad_fraction` of a split, or all of it, cannot be read.
        """
        for split in splits or TRAINING_SPLITS:
            if split not in self.splits:
                continue
            known = self.reasons.get(split, {})
            new = {name: causes[name] for name in sorted(self.splits[split].ids_among(causes.keys() - known.keys()))}
            if not new:
                continue
            reasons = self.reasons[split] = {**known, **new}
            self.trained |= set(new) if split in TRAINING_SPLITS else set()
            self.unreported += [(split, name) for name in new]
            count, total = len(reasons), len(self.splits[split])
            if count > self.max_fraction * total or count == total:
                raise DataError(
                    f"data.{split}: the audio of {count} of {total} clips can no longer be read, more than "
                    f"data.max_bad_fraction {self.max_fraction:g} allows: {listed(reasons)}. Restore the files and "
                    "rerun to resume, or start again under another name (--set name=...), without these clips"
                )

    def readable(self, split: str, items: Sequence[Utterance]) -> list[Utterance]:
        """The utterances of a split that are not skipped."""
        return [item for item in items if item.id not in self.reasons.get(split, {})]

    def report(self, callbacks: TrainerCallback, step: int) -> None:
        """Logs each clip that was added since the last call, and gives it to the callbacks."""
        for split, name in self.unreported:
            reason = self.reasons[split][name]
            log.warning("data.%s: %s is skipped from now on: %s", split, name, reason)
            callbacks.on_skipped_clip(SkippedClip(step, split, name, reason))
        self.unreported = []

    def counts(self) -> dict[str, int]:
        """The number of skipped clips of each split that has some."""
        return {split: len(reasons) for split, reasons in self.reasons.items() if reasons}


def listed(reasons: Mapping[str, str]) -> str:
    """The first clips with their reasons, and the number of other clips."""
    return first_of([f"{name} ({reason})" for name, reason in reasons.items()], SHOWN, "; ")
