"""Scores the weights of a training on valid and canary, and saves the best adapter."""

import logging
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from accelerate.utils import broadcast_object_list

from finetune.model.trainable import part_of, set_mode
from finetune.training.callbacks import TrainerCallback, ValidationRecord
from finetune.training.context import TrainContext
from finetune.training.distributed import all_ranks
from finetune.training.health import check_trained
from finetune.training.selection import Scores, format_scores, rank, read_best, save_best
from finetune.training.state import TrainState
from finetune.training.unreadable import UnreadableClips

log = logging.getLogger(__name__)

UNSCORED = "its audio could not be read when the best adapter was scored"


class Validator:
    """Scores weights, and keeps the best adapter in `run.best`.

    Args:
        context: the training.
        state: its progress; changed in place.
        unreadable: its skipped clips; clips of valid and canary are added.
        callbacks: receive the scores of trained weights.
        measure: scores the model, with the arguments of `finetune.training.selection.measure`.
    """

    def __init__(
        self,
        context: TrainContext,
        state: TrainState,
        unreadable: UnreadableClips,
        callbacks: TrainerCallback,
        measure: Callable[..., Scores],
    ) -> None:
        self.context, self.state, self.unreadable = context, state, unreadable
        self.callbacks, self.measure = callbacks, measure
        # The text does not depend on the CTC head, so all scores are equal then, and the last weights are the best.
        self.only_ctc_head = {*map(part_of, context.parameters)} == {"ctc_head"}
        if state.best is not None:
            self._find_best()

    def _find_best(self) -> None:
        """Finds the best adapter of a resumed run, on all ranks, and takes its scores from its folder.

        A run that was killed between a validation and its checkpoint has an adapter that is newer than the checkpoint.
        """
        run, records = self.context.run, list[dict[str, Any] | None]([None])
        if self.context.accelerator.is_main_process and run.find_best():
            records = [read_best(run)]
        record = broadcast_object_list(records)[0]
        if record is None:
            log.warning("%s: is missing, so the next weights that are scored are saved there", run.best)
            self.state.best = None
        elif record:
            self.state.set_best(record)
            self._skip_unscored()
            self.state.leave_out_unreadable()

    def _skip_unscored(self) -> None:
        """Skips the clips that the best adapter was scored without, which an older checkpoint does not name.

        Otherwise its scores would be of fewer clips than those of the base and of later weights.
        """
        for split, counts in self.state.best_scores.errors.items():
            unscored = [item.id for item in self.context.corpus.validation.get(split, []) if item.id not in counts]
            self.unreadable.add(dict.fromkeys(unscored, UNSCORED), split)

    def validate(self) -> Scores:
        """Scores the current weights on valid and canary.

        Clips whose audio can no longer be read are removed from the scores of the base and of the best adapter too.
        """
        model, corpus = self.context.model, self.context.corpus
        set_mode(model, training=False)
        splits = {split: self.unreadable.readable(split, items) for split, items in corpus.validation.items()}
        scores = self.measure(model, splits, self.context.recipe, self.context.accelerator)
        for split, reasons in scores.unreadable.items():
            self.unreadable.add(reasons, split)
        self.unreadable.report(self.callbacks, self.state.step)
        self.state.leave_out_unreadable()
        return scores

    def save_if_best(self, scores: Scores, alpha: float) -> bool:
        """Saves the current weights as the best adapter if their scores are the best so far. Returns True if saved.

        Of equal scores the first ones count; the last ones if only the CTC head trains. The adapter of a validation
        that a resumed run repeats is saved again.

        Args:
            scores: scores of the current weights.
            alpha: interpolation weight: base + alpha * (trained - base).
        """
        state, context, limit = self.state, self.context, self.context.recipe.train.max_canary_loss
        check_trained(context.parameters, state.epoch)
        base = state.base_scores
        reached = rank(scores, base, limit)
        best = None if state.best is None else rank(state.best_scores, base, limit)
        again = (state.epoch, alpha) == (state.best_epoch, state.best_alpha) or (self.only_ctc_head and alpha == 1)
        better = best is None or reached < best or (again and reached == best)
        record = {"best": asdict(scores), "best_epoch": state.epoch, "best_alpha": alpha}
        if better:
            main = context.accelerator.is_main_process
            saved = not main or save_best(context.model, context.adapted, context.run, record)
            better = all_ranks(context.accelerator, saved)
        if better:
            state.set_best(record)
        self.callbacks.on_validation(ValidationRecord(state.step, state.epoch, alpha, scores.valid, scores.canary))
        return better

    def score_and_keep_best(self, alpha: float) -> str:
        """Validates the current weights, saves them if they are the best, and returns the scores as text."""
        scores = self.validate()
        mark = "  (best)" if scores.valid < 1 else "  (best so far, but no better than empty texts)"
        return format_scores(scores) + mark * self.save_if_best(scores, alpha)
