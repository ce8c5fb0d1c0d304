"""`finetune pseudo-label`: machine transcripts of untranscribed audio that are good enough to train with.

This is self-training with filtered labels (Kahn et al., arXiv 1909.09116); here a text is kept if two decoders agree.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

from finetune.core.curation_options import PseudoLabelOptions
from finetune.curation.adapted_model import AdaptedModel
from finetune.curation.machine_transcripts import MachineTranscript, preset_of, transcribe_clips
from finetune.curation.outputs import CurationFiles
from finetune.curation.untranscribed import SetAside, count_reasons, read_untranscribed
from finetune.data.manifest import Utterance, seconds_of
from finetune.data.pseudo_labels import COLUMN
from finetune.metrics.wer import errors_per_utterance, normalized, spaced


@dataclass(frozen=True)
class PseudoLabelSummary:
    """Totals.

    Attributes:
        seconds: audio of all clips.
        kept_seconds: audio of the clips that are kept.
        set_aside: number of clips by reason.
        transcribed: rows of the source that have a transcript already; they are left out.
    """

    clips: int
    seconds: float
    kept: int
    kept_seconds: float
    set_aside: dict[str, int]
    transcribed: int


def pseudo_label(
    adapted: AdaptedModel, source: str, options: PseudoLabelOptions, files: CurationFiles
) -> PseudoLabelSummary:
    """Transcribes untranscribed audio, and writes a manifest of the clips whose text is probably right.

    Args:
        adapted: the model that transcribes.
        source: see `read_untranscribed`.
        options: what is kept.
        files: where the results go.

    Raises:
        DataError: the source cannot be used.
        ModelError: the model cannot be loaded.
    """
    model = adapted.load()
    audio = read_untranscribed(source, files.media, min(options.max_duration, adapted.max_duration))
    results = transcribe_clips(adapted, model, audio.clips, files.work, "pseudo-labels")
    preset = preset_of(audio.clips, results)
    agreements = text_agreement([item.text for item in results], [item.ctc_text for item in results], preset)
    kept, aside = list[Utterance](), list(audio.aside)
    for item, result, agreement in zip(audio.clips, results, agreements, strict=True):
        reason = reason_against(result, agreement, options)
        if item.is_translation:
            reason = "translation: the CTC head writes what is spoken"
        if reason:
            aside.append(_aside(item, result, agreement, reason))
        else:
            kept.append(_labelled(item, result, agreement, adapted.name))
    summary = PseudoLabelSummary(
        clips=len(kept) + len(aside),
        seconds=round(seconds_of(audio.clips), 2),
        kept=len(kept),
        kept_seconds=round(seconds_of(kept), 2),
        set_aside=count_reasons(aside),
        transcribed=audio.transcribed,
    )
    files.write(kept, aside, asdict(summary) | {"model": adapted.name, "source": source, "options": asdict(options)})
    return summary


def text_agreement(first: Sequence[str], second: Sequence[str], preset: str) -> list[float]:
    """For each pair of texts, 1 minus word errors per word of the longer text, after normalization; 0 to 1."""
    counts = errors_per_utterance(list(first), list(second), preset)
    pairs = zip(*normalized(list(first), list(second), preset), strict=True)
    lengths = [max(len(spaced(text, preset).split()) for text in pair) for pair in pairs]
    return [
        round(1 - errors / length, 4) if length else 1.0 for (errors, _), length in zip(counts, lengths, strict=True)
    ]


def reason_against(result: MachineTranscript, agreement: float, options: PseudoLabelOptions) -> str:
    """Why a transcript is not used for training; "" if it is. The kind of the reason ends at a colon."""
    confidence = min(result.confidence, result.ctc_confidence)
    checks = (
        (bool(result.failure), f"audio cannot be read: {result.failure}"),
        (not result.failure and not result.speech, "no speech"),
        (result.truncated, "text too long: it reached decode.max_new_tokens"),
        (not any(map(str.isalnum, result.text)), "no words"),
        (agreement < options.min_agreement, f"texts differ: agreement {agreement:.2f}"),
        (confidence < options.min_confidence, f"low confidence: {confidence:.2f}"),
    )
    return next((reason for fails, reason in checks if fails), "")


def _labelled(item: Utterance, result: MachineTranscript, agreement: float, model: str) -> Utterance:
    return replace(
        item,
        id=f"pseudo-{item.id}",  # the ids of other corpora can be the same, such as the numbers of files
        text=result.text,
        extra=item.extra
        | {
            COLUMN: True,
            "pred_text": result.text,
            "pred_text_ctc": result.ctc_text,
            "agreement": agreement,
            "confidence": min(result.confidence, result.ctc_confidence),
            "confidence_llm": result.confidence,
            "confidence_ctc": result.ctc_confidence,
            "labelled_by": model,
        },
    )


def _aside(item: Utterance, result: MachineTranscript, agreement: float, reason: str) -> SetAside:
    return SetAside(
        item.id,
        item.audio_filepath,
        item.offset,
        item.duration,
        reason,
        pred_text=result.text,
        pred_text_ctc=result.ctc_text,
        agreement=agreement,
        confidence=min(result.confidence, result.ctc_confidence),
    )
