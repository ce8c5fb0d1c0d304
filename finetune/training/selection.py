"""Which adapter is the best: lowest valid WER among those that keep general speech (the canary) intact."""

from dataclasses import dataclass, replace

from accelerate import Accelerator
from accelerate.utils import gather_object

from finetune.core.config import Recipe
from finetune.data.manifest import Utterance
from finetune.inference.recognize import recognize
from finetune.metrics.wer import score
from finetune.model.granite import GraniteSpeech


@dataclass(frozen=True)
class Scores:
    """Corpus WER as fractions; `canary` is None without a canary."""

    valid: float
    canary: float | None


def measure(
    model: GraniteSpeech, splits: dict[str, list[Utterance]], recipe: Recipe, accelerator: Accelerator
) -> Scores:
    """WER of generated text on `valid` and, where there is one, on `canary`; each rank hears its share."""
    lossless = recipe.decode.decoder if recipe.decode.decoder != "relaxed" else "speculative"
    options = replace(recipe.decode, decoder=lossless)
    wers = {}
    for split, utterances in splits.items():
        by_length = sorted(utterances, key=lambda item: -item.duration)
        mine = by_length[accelerator.process_index :: accelerator.num_processes]
        with model.autocast():  # the parts that train are float32, whatever the others are
            hypotheses = recognize(model, mine, recipe.model.instruction, options)
        heard = [(item.text, hypothesis.text) for item, hypothesis in zip(mine, hypotheses, strict=True)]
        pairs = gather_object(heard) if accelerator.num_processes > 1 else heard
        wers[split] = score([a for a, _ in pairs], [b for _, b in pairs], recipe.evaluate.normalizer).wer
    return Scores(wers["valid"], wers.get("canary"))


def format_scores(scores: Scores) -> str:
    canary = "" if scores.canary is None else f", canary {100 * scores.canary:.1f} %"
    return f"valid WER {100 * scores.valid:.1f} %{canary}"


def canary_loss(now: Scores, base: Scores) -> float:
    """How much worse than the base general speech is heard, in WER; 0 without a canary."""
    return 0.0 if now.canary is None or base.canary is None else now.canary - base.canary


def rank(now: Scores, base: Scores, max_canary_loss: float | None) -> tuple[float, float]:
    """Lower is better: first how far the canary is beyond its limit (0 within it), then valid WER."""
    over = 0.0 if max_canary_loss is None else max(0.0, canary_loss(now, base) - max_canary_loss)
    return (over, now.valid)
