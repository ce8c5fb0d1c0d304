"""Decodes probes: clips without speech, for which the correct output is empty."""

from dataclasses import asdict, replace

from finetune.core.options import DecodingOptions
from finetune.data.manifest import Utterance
from finetune.evaluation.decode import Recognize
from finetune.metrics.hallucination import Probe, summarize_probes
from finetune.metrics.results import ProbeResults
from finetune.model.granite import SpeechModel

PROBE_TOKENS = 40  # twice what three seconds of speech need


def evaluate_probes(
    model: SpeechModel, probes: list[Utterance], instruction: str, options: DecodingOptions, recognize: Recognize
) -> ProbeResults:
    """Decodes clips without speech, with at most `PROBE_TOKENS` tokens for each clip."""
    limit = min(PROBE_TOKENS, options.max_new_tokens)
    hypotheses = recognize(model, probes, instruction, replace(options, max_new_tokens=limit))
    outputs = [
        Probe(item.id, item.duration, hypothesis.text) for item, hypothesis in zip(probes, hypotheses, strict=True)
    ]
    return ProbeResults(
        **asdict(summarize_probes(outputs)), truncated=sum(h.truncated for h in hypotheses), outputs=outputs
    )
