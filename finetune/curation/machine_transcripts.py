"""Transcribes clips with the CTC head and the language model, with confidences; an interrupted call resumes."""

import hashlib
import json
import logging
import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from finetune.core.config import EvaluateSection
from finetune.core.errors import DataError
from finetune.core.files import stream_jsonl
from finetune.core.progress import advance, task
from finetune.curation.adapted_model import AdaptedModel
from finetune.data.audio_state import file_state
from finetune.data.manifest import Utterance, seconds_of
from finetune.data.normalizer_choice import normalizer_for
from finetune.inference.encode import batches, encode_batches
from finetune.inference.guards import ctc_text, speech_score
from finetune.inference.recognize import Hypothesis, transcribe_batch
from finetune.model.granite import SpeechModel
from finetune.version import __version__

NOT_READ = ("id", "text", "speaker", "extra", "sampling_weight")  # fields of an utterance that no model gets

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class MachineTranscript:
    """Both texts of a clip.

    Attributes:
        text: of the language model; "" without speech.
        ctc_text: of the CTC head.
        confidence: geometric mean probability of the tokens of `text`.
        ctc_confidence: mean probability of the characters of `ctc_text`.
        entropy: entropy of the CTC head in nats, summed over the frames.
        speech: whether the CTC head found speech.
        truncated: `text` reached `max_new_tokens`.
        failure: why the audio cannot be read; "" if it can.
    """

    text: str = ""
    ctc_text: str = ""
    confidence: float = 0.0
    ctc_confidence: float = 0.0
    entropy: float = 0.0
    speech: bool = False
    truncated: bool = False
    failure: str = ""


def transcribe_clips(
    adapted: AdaptedModel, model: SpeechModel, clips: Sequence[Utterance], work: Path, label: str
) -> list[MachineTranscript]:
    """The transcripts of clips, in their order.

    Each batch is added to the file `work`, from which a later call with the same model and audio takes it.

    Args:
        adapted: the prompt, the options and the identity of the model.
        model: the loaded model.
        clips: their texts are not used.
        work: the file; the caller deletes it when it has written its results.
        label: for the progress display.
    """
    keys = _keys(adapted, clips)
    known = {key: item for key, item in _read(work).items() if key in {*keys}}
    missing = [index for index, key in enumerate(keys) if key not in known]
    if known:
        log.info("%s: %d of %d clips are already transcribed (%s)", label, len(clips) - len(missing), len(clips), work)
    work.parent.mkdir(parents=True, exist_ok=True)
    plan = batches([clips[index].duration for index in missing], adapted.decoding.batch_seconds)
    with task(label, seconds_of(clips[index] for index in missing)), work.open("a", encoding="utf-8") as file:
        for batch in plan:
            chosen = [missing[position] for position in batch]
            results = _transcribe(adapted, model, [clips[index] for index in chosen])
            for index, result in zip(chosen, results, strict=True):
                known[keys[index]] = result
                file.write(json.dumps({"key": keys[index], **asdict(result)}) + "\n")
            file.flush()
            advance(seconds_of(clips[index] for index in chosen))
    return [known[key] for key in keys]


def preset_of(clips: Sequence[Utterance], results: Sequence[MachineTranscript]) -> str:
    """The normalizer for machine transcripts: the default, or that of Japanese."""
    texts = [replace(item, text=result.text) for item, result in zip(clips, results, strict=True)]
    return normalizer_for(texts, EvaluateSection.model_fields["normalizer"].default)


def _keys(adapted: AdaptedModel, clips: Sequence[Utterance]) -> list[str]:
    """A hash of everything that the transcript of a clip depends on."""
    decoding = asdict(adapted.decoding)
    model = hashlib.sha256(json.dumps([__version__, adapted.state(), adapted.instruction, decoding]).encode()).digest()
    keys = []
    for item in clips:
        place = [value for name, value in asdict(item).items() if name not in NOT_READ]
        place.append(file_state(item.audio_filepath))
        keys.append(hashlib.sha256(model + json.dumps(place).encode()).hexdigest())
    return keys


def _read(work: Path) -> Mapping[str, MachineTranscript]:
    """The transcripts of an interrupted call; the last line of a killed process can be incomplete."""
    known = dict[str, MachineTranscript]()
    with suppress(FileNotFoundError, DataError, UnicodeDecodeError, KeyError, TypeError):
        for _, row in stream_jsonl(work):
            key = str(row.pop("key"))
            known[key] = MachineTranscript(**row)
    return known


def _transcribe(adapted: AdaptedModel, model: SpeechModel, clips: Sequence[Utterance]) -> list[MachineTranscript]:
    """The transcripts of one batch; each clip alone if the audio of one cannot be read."""
    try:
        return _transcribe_readable(adapted, model, clips)
    except DataError as error:
        if len(clips) == 1:
            return [MachineTranscript(failure=str(error))]
        return [result for item in clips for result in _transcribe(adapted, model, [item])]


@torch.inference_mode()
def _transcribe_readable(
    adapted: AdaptedModel, model: SpeechModel, clips: Sequence[Utterance]
) -> list[MachineTranscript]:
    results = dict[int, MachineTranscript]()
    for batch, audio, _ in encode_batches(model, clips, math.inf):
        log_probs = model.ctc_logits(audio.states).float().log_softmax(-1)
        frames = [row[:count].cpu().numpy() for row, count in zip(log_probs, audio.num_frames.tolist(), strict=True)]
        scores = [speech_score(values) for values in frames]
        speech = [row for row, score in enumerate(scores) if score > 0 and score >= adapted.no_speech]
        items = [clips[batch[row]] for row in speech]
        hypotheses = transcribe_batch(model, audio.select(speech), items, adapted.instruction, adapted.decoding)
        texts = dict(zip(speech, hypotheses, strict=True))
        results |= {index: _result(frames[row], texts.get(row)) for row, index in enumerate(batch)}
    return [results[index] for index in range(len(clips))]


def _result(log_probs: NDArray[np.float32], hypothesis: Hypothesis | None) -> MachineTranscript:
    """The transcript from the CTC log probabilities (T, V) and the text of the language model; None without speech."""
    text, probs = ctc_text(log_probs)
    result = MachineTranscript(
        ctc_text=text,
        ctc_confidence=round(float(np.mean(probs)), 4) if probs else 0.0,
        entropy=round(-float((np.exp(log_probs) * log_probs).sum()), 4),
    )
    if hypothesis is None:
        return result
    tokens = len(hypothesis.tokens) + (not hypothesis.truncated)  # with the end of text
    return replace(
        result,
        text=hypothesis.text,
        confidence=round(math.exp(hypothesis.log_probability / max(1, tokens)), 4),
        speech=True,
        truncated=hypothesis.truncated,
    )
