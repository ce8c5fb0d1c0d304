"""Selects the best adapter: the lowest WER on valid among the adapters that keep the canary WER within its limit."""

import logging
import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace

from accelerate import Accelerator
from accelerate.utils import gather_object
from peft import PeftModel
from safetensors import SafetensorError

from finetune.core.config import Recipe
from finetune.core.errors import DataError
from finetune.core.files import is_disk_full, replace_folder
from finetune.core.progress import task
from finetune.core.run_dir import RunDir
from finetune.data.audio import load_utterance
from finetune.data.manifest import Utterance, seconds_of
from finetune.data.normalizer_choice import normalizer_for
from finetune.inference.recognize import Hypothesis, recognize
from finetune.metrics.wer import error_rate, errors_per_utterance, score
from finetune.model.adapter import save_adapter
from finetune.model.granite import SpeechModel

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Scores:
    """Corpus WER as fractions.

    Attributes:
        canary: None without a canary.
        errors: by split and utterance id, word errors and reference words.
        unreadable: by split and utterance id, why the audio cannot be read; such clips are not scored.
    """

    valid: float
    canary: float | None
    errors: dict[str, dict[str, list[int]]] = field(default_factory=dict)
    unreadable: dict[str, dict[str, str]] = field(default_factory=dict)

    def without(self, split: str, ids: Iterable[str]) -> "Scores":
        """The scores without some clips of a split, so that scores of several models are of the same clips."""
        if not (known := self.errors.get(split)):
            return self
        removed = set(ids)
        kept = {name: counts for name, counts in known.items() if name not in removed}
        wer = error_rate(*(sum(column) for column in zip(*kept.values(), strict=True)))
        errors = {**self.errors, split: kept}
        return replace(self, valid=wer, errors=errors) if split == "valid" else replace(self, canary=wer, errors=errors)


def recognize_readable(
    recognize: Callable[[list[Utterance]], list[Hypothesis]], utterances: list[Utterance]
) -> tuple[list[tuple[Utterance, Hypothesis]], dict[str, str]]:
    """The utterances with their hypotheses; and, by id, why the audio of the other utterances cannot be read."""
    try:
        return list(zip(utterances, recognize(utterances), strict=True)), {}
    except DataError:
        reasons = dict[str, str]()
        for item in utterances:
            try:
                load_utterance(item)
            except DataError as error:
                reasons[item.id] = str(error)
        if not reasons:
            raise
    hypotheses, more = recognize_readable(recognize, [item for item in utterances if item.id not in reasons])
    return hypotheses, reasons | more


def measure(model: SpeechModel, splits: dict[str, list[Utterance]], recipe: Recipe, accelerator: Accelerator) -> Scores:
    """WER of the generated text on `valid`, and on `canary` if there is one; each rank decodes a part of the clips.

    Clips whose audio cannot be read are not scored; the result names them.
    """
    lossless = recipe.decode.decoder if recipe.decode.decoder != "relaxed" else "speculative"
    options = replace(recipe.decode, decoder=lossless)
    wers, errors, unreadable = dict[str, float](), dict[str, dict[str, list[int]]](), dict[str, dict[str, str]]()
    for split, utterances in splits.items():
        by_length = sorted(utterances, key=lambda item: -item.duration)
        local = by_length[accelerator.process_index :: accelerator.num_processes]
        # Autocast, because the trained parts are float32 and the others can have another dtype.
        with task(split, seconds_of(local)), model.autocast():
            hypotheses, reasons = recognize_readable(
                lambda items: recognize(model, items, recipe.model.instruction, options), local
            )
        rows = [(item.id, item.text, hypothesis.text) for item, hypothesis in hypotheses]
        if accelerator.num_processes > 1:
            rows, reasons = gather_object(rows), dict(gather_object([*reasons.items()]))
        ids, references, texts = ([row[column] for row in rows] for column in range(3))
        wers[split] = score(references, texts, normalizer_for(utterances, recipe.evaluate.normalizer)).wer
        counts = errors_per_utterance(references, texts, recipe.evaluate.normalizer)
        errors[split] = {name: list(count) for name, count in zip(ids, counts, strict=True)}
        unreadable |= {split: dict(sorted(reasons.items()))} if reasons else {}
    return Scores(wers["valid"], wers.get("canary"), errors, unreadable)


def format_scores(scores: Scores) -> str:
    canary = "" if scores.canary is None else f", canary {100 * scores.canary:.1f} %"
    return f"valid WER {100 * scores.valid:.1f} %{canary}"


def canary_loss(scores: Scores, base: Scores) -> float:
    """Increase of the canary WER over the base model; 0 without a canary."""
    return 0.0 if scores.canary is None or base.canary is None else scores.canary - base.canary


def rank(scores: Scores, base: Scores, max_canary_loss: float | None) -> tuple[float, float]:
    """A sort key, lower is better: how much the canary WER exceeds its limit (0 within it), then the WER on valid."""
    over = 0.0 if max_canary_loss is None else max(0.0, canary_loss(scores, base) - max_canary_loss)
    return (over, scores.valid)


def save_best(model: SpeechModel, adapted: PeftModel | None, run: RunDir) -> bool:
    """Replaces the run's best adapter. Returns False if the disk is full; then the earlier adapter is kept."""
    staged = run.best.with_name("best.part")
    try:
        save_adapter(model, adapted, staged)
        replace_folder(staged, run.best)
    except (OSError, SafetensorError) as error:
        if not is_disk_full(error):
            raise
        shutil.rmtree(staged, ignore_errors=True)
        log.warning("%s: the disk is full; the better adapter is not saved, the earlier one is kept", run.best)
        return False
    return True
