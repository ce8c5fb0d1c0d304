"""Says what a model was not trained for, and converts hypotheses for scoring."""

import logging
from collections.abc import Callable, Iterable

from finetune.core.model_limits import ModelLimits
from finetune.core.options import MAX_WINDOW, DecodingOptions
from finetune.core.wording import count, verb
from finetune.data.manifest import Utterance
from finetune.data.row_prompt import has_ctc_text, instruction_of
from finetune.inference.keyword_warning import unwritable_warning
from finetune.inference.recognize import Hypothesis
from finetune.metrics.scorecard import SystemOutput
from finetune.model.granite import SpeechModel

log = logging.getLogger(__name__)

Recognize = Callable[[SpeechModel, list[Utterance], str, DecodingOptions], list[Hypothesis]]


def warn_about_limits(
    limits: ModelLimits, utterances: Iterable[Utterance], instruction: str, decoding: DecodingOptions
) -> None:
    """Logs, once each, what the model was not trained for: prompts, and the number of clips that are too long.

    These clips are decoded as they are, unless the recipe sets `decode.max_window`.

    Args:
        limits: the limits of the model.
        utterances: the clips to decode.
        instruction: the instruction of the recipe.
        decoding: how they are decoded.
    """
    items = list(utterances)
    pairs = ((instruction_of(item, instruction), decoding.in_prompt(item.keywords)) for item in items)
    prompts = dict.fromkeys((text, bool(keywords)) for text, keywords in pairs)
    for warning in dict.fromkeys(filter(None, (limits.prompt_warning(*prompt) for prompt in prompts))):
        log.warning("warning: %s", warning)
    searched = dict.fromkeys(word for item in items if has_ctc_text(item) for word in decoding.by_ctc(item.keywords))
    if unwritable := unwritable_warning(searched):
        log.warning("warning: %s", unwritable)
    not_cut = decoding.max_window == MAX_WINDOW > limits.max_duration
    if not_cut and (long := sum(item.duration > limits.max_duration for item in items)):
        log.warning(
            "%d of %s %s longer than %g s, the limit of the model (limits.json), and decoded in one piece. `finetune "
            "transcribe` cuts such clips at pauses, as evaluation does with decode.max_window",
            long,
            count(len(items), "clip"),
            verb(long, "is", "are"),
            limits.max_duration,
        )


def system_output(hypothesis: Hypothesis) -> SystemOutput:
    """The part of a hypothesis that scoring needs."""
    return SystemOutput(hypothesis.text, hypothesis.seconds, hypothesis.truncated)
