"""Selects the best adapter: the lowest error on valid among the adapters that keep the canary error within its limit.

The error of transcriptions is their WER, that of translations 1 - chrF, and that of a split with both the mean of the
two, weighted by clips.
"""

import logging
import shutil
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from accelerate import Accelerator
from accelerate.utils import gather_object
from peft import PeftModel
from safetensors import SafetensorError

from finetune.core.config import Recipe
from finetune.core.errors import DataError
from finetune.core.files import is_disk_full, read_json, replace_folder, write_json
from finetune.core.progress import task
from finetune.core.run_dir import RunDir
from finetune.data.audio import load_utterance
from finetune.data.manifest import Utterance, seconds_of
from finetune.data.normalizer_choice import normalizer_for
from finetune.inference.recognize import Hypothesis, recognize
from finetune.metrics.chrf import COUNTS, chrf_counts, chrf_error
from finetune.metrics.normalizer import UNSPACED
from finetune.metrics.wer import error_rate, errors_per_utterance
from finetune.model.adapter import save_adapter
from finetune.model.granite import SpeechModel

log = logging.getLogger(__name__)

SCORES = "scores.json"  # in the folder of the best adapter


@dataclass(frozen=True)
class Scores:
    """Errors as fractions: the WER, or that of `split_error` if there are translations.

    Attributes:
        canary: None without a canary.
        errors: by split and utterance id, word errors and reference words; the `chrf_counts` of a translation.
        unreadable: by split and utterance id, why the audio cannot be read; such clips are not scored.
        in_characters: the splits whose transcriptions are scored in characters, such as Japanese ones.
    """

    valid: float
    canary: float | None
    errors: dict[str, dict[str, list[int]]] = field(default_factory=dict)
    unreadable: dict[str, dict[str, str]] = field(default_factory=dict)
    in_characters: list[str] = field(default_factory=list)

    def without(self, split: str, ids: Iterable[str]) -> "Scores":
        """The scores without some clips of a split, so that scores of several models are of the same clips."""
        if not (known := self.errors.get(split)):
            return self
        removed = set(ids)
        kept = {name: counts for name, counts in known.items() if name not in removed}
        error, errors = split_error(kept.values()), {**self.errors, split: kept}
        return (
            replace(self, valid=error, errors=errors)
            if split == "valid"
            else replace(self, canary=error, errors=errors)
        )

    def metric(self, split: str) -> str:
        """The name of the error of a split: WER or CER, or "error" if it is that of translations too."""
        if any(len(count) == COUNTS for count in self.errors.get(split, {}).values()):
            return "error"
        return "CER" if split in self.in_characters else "WER"


def split_error(counts: Iterable[list[int]]) -> float:
    """The error of a split: the WER of its transcriptions and 1 - chrF of its translations, weighted by their clips.

    Args:
        counts: for each clip, its word errors and reference words, or the `chrf_counts` of a translation.
    """
    words, translations = list[list[int]](), list[list[int]]()
    for count in counts:
        (translations if len(count) == COUNTS else words).append(count)
    wer = error_rate(*(sum(column) for column in zip(*words, strict=True))) if words else 0.0
    if not translations:
        return wer
    total = len(words) + len(translations)
    return (len(words) * wer + len(translations) * chrf_error(translations)) / total


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
    """Errors of the generated text on `valid`, and on `canary` if there is one; each rank decodes a part of the clips.

    Clips whose audio cannot be read are not scored; the result names them.
    """
    lossless = recipe.decode.decoder if recipe.decode.decoder != "relaxed" else "speculative"
    options = replace(recipe.decode, decoder=lossless)
    errors, unreadable, in_characters = dict[str, dict[str, list[int]]](), dict[str, dict[str, str]](), list[str]()
    for split, utterances in splits.items():
        by_length = sorted(utterances, key=lambda item: -item.duration)
        local = by_length[accelerator.process_index :: accelerator.num_processes]
        # Autocast, because the trained parts are float32 and the others can have another dtype.
        with task(split, seconds_of(local)), model.autocast():
            hypotheses, reasons = recognize_readable(
                lambda items: recognize(model, items, recipe.model.instruction, options), local
            )
        rows = [(item, hypothesis.text) for item, hypothesis in hypotheses]
        if accelerator.num_processes > 1:
            rows, reasons = gather_object(rows), dict(gather_object([*reasons.items()]))
        if not rows:
            raise DataError(f"{split}: there are no utterances to score; the audio of all clips cannot be read")
        preset = normalizer_for([item for item, _ in rows if not item.is_translation], recipe.evaluate.normalizer)
        errors[split] = _counts(rows, preset)
        in_characters += [split] * (preset in UNSPACED)
        unreadable |= {split: dict(sorted(reasons.items()))} if reasons else {}
    wers = {split: split_error(counts.values()) for split, counts in errors.items()}
    return Scores(wers["valid"], wers.get("canary"), errors, unreadable, in_characters)


def _counts(rows: Sequence[tuple[Utterance, str]], preset: str) -> dict[str, list[int]]:
    """By utterance id, the counts of `Scores.errors` of a hypothesis."""
    spoken = [(item, text) for item, text in rows if not item.is_translation]
    counts = errors_per_utterance([item.text for item, _ in spoken], [text for _, text in spoken], preset)
    words = {item.id: list(count) for (item, _), count in zip(spoken, counts, strict=True)}
    return {item.id: words.get(item.id) or chrf_counts(item.text, text) for item, text in rows}


def format_scores(scores: Scores) -> str:
    valid, other = scores.metric("valid"), scores.metric("canary")
    name = "" if other == valid else f"{other} "
    canary = "" if scores.canary is None else f", canary {name}{100 * scores.canary:.1f} %"
    return f"valid {valid} {100 * scores.valid:.1f} %{canary}"


def canary_loss(scores: Scores, base: Scores) -> float:
    """Increase of the canary error over the base model; 0 without a canary."""
    return 0.0 if scores.canary is None or base.canary is None else scores.canary - base.canary


def rank(scores: Scores, base: Scores, max_canary_loss: float | None) -> tuple[float, float]:
    """A sort key, lower is better: how much the canary error exceeds its limit (0 within it), then the valid error."""
    over = 0.0 if max_canary_loss is None else max(0.0, canary_loss(scores, base) - max_canary_loss)
    return (over, scores.valid)


def save_best(model: SpeechModel, adapted: PeftModel | None, run: RunDir, record: dict[str, Any]) -> bool:
    """Replaces the run's best adapter. Returns False if the disk is full; then the earlier adapter is kept.

    Args:
        model: the model.
        adapted: the model with LoRA layers, if there are some.
        run: the run directory.
        record: scores, epoch and alpha of the adapter, which are saved with it.
    """
    staged = run.best.with_name("best.part")
    try:
        save_adapter(model, adapted, staged)
        write_json(staged / SCORES, record)
        replace_folder(staged, run.best)
    except (OSError, SafetensorError) as error:
        if not is_disk_full(error):
            raise
        shutil.rmtree(staged, ignore_errors=True)
        kept = "the earlier one is kept" if run.best.exists() else "and there is no earlier one"
        log.warning("%s: the disk is full; the better adapter is not saved, %s", run.best, kept)
        return False
    return True


def read_best(run: RunDir) -> dict[str, Any]:
    """The record that `save_best` saved with the best adapter; empty if there is none, as in older runs."""
    try:
        record = read_json(run.best / SCORES)
        Scores(**record["best"])
        return {"best": record["best"], "best_epoch": int(record["best_epoch"]), "best_alpha": record["best_alpha"]}
    except (OSError, ValueError, TypeError, LookupError):
        return {}
