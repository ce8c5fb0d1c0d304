"""Trains with the recipe of IBM's fine-tuning notebook for a given time, and scores models for `compare_notebook`."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR
from transformers import PrinterCallback, Trainer, TrainerCallback

from bench.sides import collate, open_as_notebook, training_arguments
from finetune.core.config import AugmentSection, KeywordsSection, Recipe
from finetune.core.run_dir import RunDir
from finetune.data.manifest import read_manifest
from finetune.inference.encode import load_waveforms
from finetune.inference.recognize import recognize
from finetune.metrics.terms import read_terms, summarize, term_recall
from finetune.metrics.wer import score
from finetune.model.granite import SpeechModel
from finetune.training.dataset import SpeechDataset

WARMUP = 0.2  # of the training, as in the notebook


class Budget:
    """The time that a training may take; it starts with the first question.

    Args:
        seconds: its length.
        clock: `time.monotonic`, or `time.process_time` on a CPU that other work shares.
    """

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.seconds, self.clock, self.started = seconds, clock, -1.0

    def used(self) -> float:
        """The fraction that has passed, at most 1."""
        if self.started < 0:
            self.started = self.clock()
        return min(1.0, (self.clock() - self.started) / self.seconds)


def rate_factor(used: float) -> float:
    """The Trainer's linear schedule by time instead of steps: warm-up to 1, then linearly to 0."""
    return used / WARMUP if used < WARMUP else (1 - used) / (1 - WARMUP)


class TimedTrainer(Trainer):  # type: ignore[misc]
    """A Trainer whose schedule follows a budget."""

    def __init__(self, *args: Any, budget: Budget, **keywords: Any) -> None:
        self.budget = budget
        super().__init__(*args, **keywords)

    def create_scheduler(self, num_training_steps: int, optimizer: Optimizer | None = None) -> LambdaLR:
        self.lr_scheduler = LambdaLR(optimizer or self.optimizer, lambda _: rate_factor(self.budget.used()))
        return self.lr_scheduler


class StopAtEnd(TrainerCallback):  # type: ignore[misc]
    """Ends the training once the budget is used up."""

    def __init__(self, budget: Budget) -> None:
        self.budget = budget

    def on_step_end(self, _args: Any, _state: Any, control: Any, **_: Any) -> None:
        control.should_training_stop = self.budget.used() >= 1


def divide_logits(model: SpeechModel) -> Any:
    """Divides the logits of the transformers model by `logits_scaling`, as transformers up to 5.9 did.

    IBM wrote the notebook with such a version. Versions 5.10.1 to 5.23, at least, leave the division out, which makes
    the notebook's loss another one. Returns a handle; `remove()` it before anything else uses the head.
    """

    def divide(_module: nn.Module, _inputs: Any, output: Tensor) -> Tensor:
        return output / model.logits_scaling

    return model.lm_head.register_forward_hook(divide)


def divides_itself(model: SpeechModel, batch: dict[str, Tensor]) -> bool:
    """Whether `forward` of the installed transformers divides the logits."""
    seen = list[Tensor]()
    handle = model.lm_head.register_forward_hook(lambda _module, _inputs, output: seen.append(output.detach()))
    logits = model.hf(**batch).logits.detach()
    handle.remove()
    return not logits.float().allclose(seen[0].float())


def train_as_notebook(
    model: SpeechModel, recipe: Recipe, run: RunDir, rate: float, seed: int, budget: Budget, folder: Path
) -> int:
    """Trains the parts that the notebook trains, on the clips of train, until the budget is used up.

    The batches, the loss and all modules in train mode are the notebook's; the prompt is that of the recipe, which the
    base knows. Features are made by this toolkit. Returns the number of optimizer steps.
    """
    clips = read_manifest(run.manifest("train"))
    plain = recipe.model_copy(update={"augment": AugmentSection(), "keywords": KeywordsSection()})
    data, waves = SpeechDataset(model, plain, clips), load_waveforms(clips)
    adapted, device = open_as_notebook(model, 0), model.device.type
    handle = None if divides_itself(model, collate(data, waves, [0])) else divide_logits(model)
    trainer = TimedTrainer(
        adapted,
        training_arguments(
            folder, device, learning_rate=rate, num_train_epochs=100_000, seed=seed, data_seed=seed, warmup_steps=0
        ),
        data_collator=lambda chosen: collate(data, waves, chosen),
        train_dataset=list(range(len(clips))),
        callbacks=[StopAtEnd(budget)],
        budget=budget,
    )
    trainer.remove_callback(PrinterCallback)
    steps: int = trainer.train().global_step
    if handle:
        handle.remove()
    return steps


def score_model(model: SpeechModel, recipe: Recipe, run: RunDir) -> dict[str, float]:
    """WER of each split of the run (valid, test, canary) and the recall of the terms on test, as fractions."""
    model.eval()
    scores = dict[str, float]()
    for split in ("valid", "test", "canary"):
        if not run.manifest(split).is_file():
            continue
        items = read_manifest(run.manifest(split))
        with model.autocast():
            texts = [row.text for row in recognize(model, items, recipe.model.instruction, recipe.decode)]
        references = [item.text for item in items]
        scores[split] = score(references, texts, recipe.evaluate.normalizer).wer
        if split == "test" and recipe.data.terms:
            rows = term_recall(references, texts, read_terms(recipe.data.terms), recipe.evaluate.normalizer)
            scores["recall"] = summarize(rows).recall or 0.0
    return scores
