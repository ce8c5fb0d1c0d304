"""Selects the best adapter: the lowest WER on valid among the adapters that keep the canary WER within its limit."""

import logging
import shutil
from dataclasses import dataclass, replace

from accelerate import Accelerator
from accelerate.utils import gather_object
from peft import PeftModel
from safetensors import SafetensorError

from finetune.core.config import Recipe
from finetune.core.files import is_disk_full, replace_folder
from finetune.core.run_dir import RunDir
from finetune.data.manifest import Utterance
from finetune.inference.recognize import recognize
from finetune.metrics.wer import score
from finetune.model.adapter import save_adapter
from finetune.model.granite import SpeechModel

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Scores:
    """Corpus WER as fractions; `canary` is None without a canary."""

    valid: float
    canary: float | None


def measure(model: SpeechModel, splits: dict[str, list[Utterance]], recipe: Recipe, accelerator: Accelerator) -> Scores:
    """WER of the generated text on `valid`, and on `canary` if there is one; each rank decodes a part of the clips."""
    lossless = recipe.decode.decoder if recipe.decode.decoder != "relaxed" else "speculative"
    options = replace(recipe.decode, decoder=lossless)
    wers = {}
    for split, utterances in splits.items():
        by_length = sorted(utterances, key=lambda item: -item.duration)
        local = by_length[accelerator.process_index :: accelerator.num_processes]
        with model.autocast():  # the trained parts are float32; the others can have another dtype
            hypotheses = recognize(model, local, recipe.model.instruction, options)
        pairs = [(item.text, hypothesis.text) for item, hypothesis in zip(local, hypotheses, strict=True)]
        if accelerator.num_processes > 1:
            pairs = gather_object(pairs)
        references, texts = [reference for reference, _ in pairs], [text for _, text in pairs]
        wers[split] = score(references, texts, recipe.evaluate.normalizer).wer
    return Scores(wers["valid"], wers.get("canary"))


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
