"""Decodes utterances with the options of a recipe."""

from collections.abc import Callable

from finetune.core.options import DecodingOptions
from finetune.data.manifest import Utterance
from finetune.evaluation.utterances import instruction_of
from finetune.inference.recognize import Hypothesis, recognize
from finetune.metrics.scorecard import SystemOutput
from finetune.model.granite import SpeechModel

Recognize = Callable[[SpeechModel, list[Utterance], str, DecodingOptions], list[Hypothesis]]


def decode_utterances(
    model: SpeechModel,
    utterances: list[Utterance],
    instruction: str,
    options: DecodingOptions,
    recognize: Recognize = recognize,
) -> list[Hypothesis]:
    """Decodes utterances with `recognize`, grouped by instruction.

    Args:
        model: the model.
        utterances: the utterances; a manifest column `instruction` overrides `instruction`.
        instruction: instruction for the other utterances.
        options: the decoding options.
        recognize: decodes utterances with one instruction.

    Returns:
        One hypothesis for each utterance, in the same order.

    Raises:
        DataError: the audio of an utterance cannot be read.
    """
    by_instruction: dict[str, list[int]] = {}
    for index, item in enumerate(utterances):
        by_instruction.setdefault(instruction_of(item, instruction), []).append(index)
    hypotheses: dict[int, Hypothesis] = {}
    for prompt, indices in by_instruction.items():
        group = recognize(model, [utterances[i] for i in indices], prompt, options)
        hypotheses |= dict(zip(indices, group, strict=True))
    return [hypotheses[index] for index in range(len(utterances))]


def system_output(hypothesis: Hypothesis) -> SystemOutput:
    """The part of a hypothesis that scoring needs."""
    return SystemOutput(hypothesis.text, hypothesis.seconds, hypothesis.truncated)
