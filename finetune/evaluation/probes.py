"""Decodes probes: clips without speech, for which the right output is empty."""

from dataclasses import asdict, dataclass, replace

from finetune.core.options import DecodingOptions
from finetune.data.manifest import Utterance
from finetune.evaluation.decode import decode_utterances
from finetune.metrics.hallucination import Probe, ProbeSummary, summarize_probes
from finetune.model.granite import GraniteSpeech

PROBE_TOKENS = 40  # twice what three seconds of speech need


@dataclass(frozen=True)
class ProbeResults(ProbeSummary):
    """The summary of all probes, how many outputs reached the token limit, and the output for each probe."""

    truncated: int
    outputs: tuple[Probe, ...]


def evaluate_probes(
    model: GraniteSpeech, probes: list[Utterance], instruction: str, options: DecodingOptions
) -> ProbeResults:
    """Decodes clips without speech, with at most `PROBE_TOKENS` tokens for each clip."""
    limit = min(PROBE_TOKENS, options.max_new_tokens)
    hypotheses = decode_utterances(model, probes, instruction, replace(options, max_new_tokens=limit))
    outputs = tuple(
        Probe(item.id, item.duration, hypothesis.text) for item, hypothesis in zip(probes, hypotheses, strict=True)
    )
    return ProbeResults(
        **asdict(summarize_probes(outputs)), truncated=sum(h.truncated for h in hypotheses), outputs=outputs
    )
