"""Decodes utterances with the options of a recipe."""

import logging
from collections.abc import Callable, Iterable

from finetune.core.model_limits import ModelLimits
from finetune.core.options import DecodingOptions
from finetune.data.manifest import Utterance
from finetune.evaluation.utterances import instruction_of
from finetune.inference.recognize import Hypothesis, recognize
from finetune.metrics.scorecard import SystemOutput
from finetune.model.granite import SpeechModel

log = logging.getLogger(__name__)

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


def warn_about_limits(limits: ModelLimits, utterances: Iterable[Utterance], instruction: str) -> None:
    """Logs, once each, what the model was not trained for: prompts, and the number of clips that are too long.

    These clips are decoded as they are; only `finetune transcribe` cuts them.

    Args:
        limits: the limits of the model.
        utterances: the clips to decode.
        instruction: instruction for clips without a column `instruction`.
    """
    items = list(utterances)
    prompts = dict.fromkeys((instruction_of(item, instruction), bool(item.keywords)) for item in items)
    for warning in dict.fromkeys(filter(None, (limits.prompt_warning(*prompt) for prompt in prompts))):
        log.warning("warning: %s", warning)
    if long := sum(item.duration > limits.max_duration for item in items):
        log.warning(
            "%d of %d clips are longer than %g s, the limit of the model (limits.json). They are decoded as they are; "
            "`finetune transcribe` would cut them",
            long,
            len(items),
            limits.max_duration,
        )


def system_output(hypothesis: Hypothesis) -> SystemOutput:
    """The part of a hypothesis that scoring needs."""
    return SystemOutput(hypothesis.text, hypothesis.seconds, hypothesis.truncated)
