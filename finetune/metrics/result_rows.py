"""Types of the rows of `evaluation/*.jsonl`: utterances with their hypotheses, and suspicious references.

`scripts/write_schemas.py` writes their JSON schemas to `docs/schemas/`.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class UtteranceResult:
    """A row of `evaluation/utterances.jsonl`: one utterance with both hypotheses, with the keys of leaderboards.

    `pred_text`, `time` (seconds), `errors` and `flags` are those of the adapted model; `words` counts the reference.
    `target_language` is that of a translation; `written_language` that of a text with the flag `language`.
    `bandwidth` (Hz) and `snr` (dB) are measured on test only.
    """

    set: str
    id: str
    audio_filepath: str
    offset: float
    duration: float
    time: float
    text: str
    pred_text: str
    pred_text_base: str
    speaker: str
    language: str
    words: int
    errors: int
    errors_base: int
    flags: list[str]
    flags_base: list[str]
    bandwidth: float | None = None
    snr: float | None = None
    channel: int | None = None
    target_language: str | None = None
    written_language: str | None = None
    written_language_base: str | None = None


@dataclass(frozen=True)
class SuspiciousReference:
    """A row of `evaluation/suspicious.jsonl`: a reference that differs from three similar hypotheses.

    `suspicion` is above 0 and at most 1; see `finetune.metrics.reference_check`.
    """

    id: str
    audio_filepath: str
    offset: float
    duration: float
    text: str
    pred_text: str
    pred_text_base: str
    pred_text_ctc: str
    suspicion: float
    channel: int | None = None
