"""Decodes utterances with the options of a recipe."""

from dataclasses import replace

from finetune.core.config import Recipe
from finetune.data.manifest import Utterance
from finetune.evaluation.utterances import instruction_of
from finetune.inference.recognize import DecodeOptions, Hypothesis, recognize
from finetune.inference.thresholds import Thresholds
from finetune.metrics.scorecard import SystemOutput
from finetune.model.granite import GraniteSpeech


def options_of(recipe: Recipe, decoder: str) -> DecodeOptions:
    """The decoding options of a recipe, with `decoder` instead of the recipe's own decoder."""
    decode = recipe.decode
    relaxed = Thresholds(decode.max_entropy, decode.min_probability) if decoder == "relaxed" else None
    return DecodeOptions(
        recipe.model.instruction, decoder != "greedy", decode.batch_seconds, decode.max_new_tokens, relaxed
    )


def decode_utterances(model: GraniteSpeech, utterances: list[Utterance], options: DecodeOptions) -> list[Hypothesis]:
    """Decodes utterances with `recognize`, grouped by instruction.

    Args:
        model: the model.
        utterances: an utterance with its own `instruction` is decoded with it, the others with `options.instruction`.
        options: the decoding options.

    Returns:
        One hypothesis for each utterance, in their order.

    Raises:
        DataError: the audio of an utterance cannot be read.
    """
    by_instruction: dict[str, list[int]] = {}
    for index, item in enumerate(utterances):
        by_instruction.setdefault(instruction_of(item, options.instruction), []).append(index)
    hypotheses: dict[int, Hypothesis] = {}
    for instruction, indices in by_instruction.items():
        group = recognize(model, [utterances[i] for i in indices], replace(options, instruction=instruction))
        hypotheses |= dict(zip(indices, group, strict=True))
    return [hypotheses[index] for index in range(len(utterances))]


def system_output(hypothesis: Hypothesis) -> SystemOutput:
    """The part of a hypothesis that scoring needs."""
    return SystemOutput(hypothesis.text, hypothesis.seconds, hypothesis.truncated)
