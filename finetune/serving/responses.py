"""The bodies of responses: all formats of a transcript, and the events of a stream."""

import json
import math
import zlib
from typing import Any

import torch
from starlette.responses import JSONResponse, PlainTextResponse, Response

from finetune.core.languages import TRANSLATION_TARGETS
from finetune.core.options import TranscribeOptions
from finetune.data.audio import SAMPLE_RATE
from finetune.data.features import num_frames
from finetune.inference.recognize import Hypothesis
from finetune.inference.recordings import Job
from finetune.inference.segments import Segment, Word, join_texts
from finetune.inference.window_batches import Result
from finetune.serving.models import ServedModel
from finetune.serving.parameters import Parameters


def respond(job: Job, parameters: Parameters) -> Response:
    """The response of a complete job."""
    transcript = job.transcript()
    if parameters.form == "text":
        return PlainTextResponse(transcript.text + "\n")
    if parameters.form == "srt":
        return PlainTextResponse(transcript.to_srt())
    if parameters.form == "vtt":
        return PlainTextResponse(transcript.to_vtt(), media_type="text/vtt")
    if parameters.form == "verbose_json":
        return JSONResponse(verbose(job, parameters))
    return JSONResponse({"text": transcript.text, "usage": usage(job)})


def limit_note(options: TranscribeOptions) -> str:
    """The note of a text that reached the limit of tokens."""
    return f"the text of a window reached {options.decoding.max_new_tokens} tokens and was cut"


def usage(job: Job) -> dict[str, Any]:
    """What a request used, in whole seconds of audio."""
    return {"type": "duration", "seconds": math.ceil(job.duration)}


def token_usage(job: Job, model: ServedModel) -> dict[str, Any]:
    """The tokens that the language model read and wrote. It does not read windows without speech."""
    parts = [part for result in job.results for part in result]
    frames = [num_frames(round((segment.end - segment.start) * SAMPLE_RATE)) for segment, _ in parts]
    audio = int(model.network.num_audio_tokens(torch.tensor(frames, dtype=torch.long)).sum())
    text = len(parts) * model.check(job.options)
    output = sum(len(hypothesis.tokens) for _, hypothesis in parts)
    return {
        "type": "tokens",
        "input_tokens": audio + text,
        "output_tokens": output,
        "total_tokens": audio + text + output,
        "input_token_details": {"audio_tokens": audio, "text_tokens": text},
    }


def verbose(job: Job, parameters: Parameters) -> dict[str, Any]:
    """The content of `verbose_json`. A value that this model does not have is null."""
    transcript = job.transcript()
    content: dict[str, Any] = {
        "task": parameters.task,
        "language": TRANSLATION_TARGETS[transcript.language].lower() if transcript.language else None,
        "duration": round(transcript.duration, 3),
        "text": transcript.text,
    }
    if "word" in parameters.granularities:
        translated = parameters.options.translate_to  # its words have no times
        content["words"] = None if translated else [_word(word) for word in transcript.words]
    if "segment" in parameters.granularities:
        parts = [part for result in job.results for part in result if part[0].text]
        content["segments"] = [_segment(number, *part) for number, part in enumerate(parts)]
    return {**content, "usage": usage(job)}


class TextStream:
    """The events of a stream. The deltas together are the text."""

    def __init__(self) -> None:
        self._text, self._segments = "", 0

    def window(self, result: Result) -> list[dict[str, Any]]:
        """The events of a window, whose text is final."""
        events: list[dict[str, Any]] = []
        for segment, _ in result:
            if not segment.text:
                continue
            text = join_texts([self._text, segment.text])
            events.append({"type": "transcript.text.delta", "delta": text[len(self._text) :]})
            events.append(
                {
                    "type": "transcript.text.segment",
                    "id": f"seg_{self._segments}",
                    "start": round(segment.start, 3),
                    "end": round(segment.end, 3),
                    "text": segment.text,
                    "speaker": None,  # not known
                }
            )
            self._text, self._segments = text, self._segments + 1
        return events

    def done(self, job: Job, model: ServedModel) -> dict[str, Any]:
        """The last event."""
        return {"type": "transcript.text.done", "text": self._text, "usage": token_usage(job, model)}


def encode_event(content: dict[str, Any]) -> bytes:
    """An event of a stream (server-sent events)."""
    return f"data: {json.dumps(content, ensure_ascii=False)}\n\n".encode()


def _word(word: Word) -> dict[str, Any]:
    return {"word": word.text, "start": round(word.start, 3), "end": round(word.end, 3)}


def _segment(number: int, segment: Segment, hypothesis: Hypothesis) -> dict[str, Any]:
    text = segment.text.encode()
    return {
        "id": number,
        "seek": None,
        "start": round(segment.start, 3),
        "end": round(segment.end, 3),
        "text": segment.text,
        "tokens": list(hypothesis.tokens),
        "temperature": 0.0,
        "avg_logprob": hypothesis.log_probability / (len(hypothesis.tokens) + 1),  # with the end of the text
        "compression_ratio": len(text) / len(zlib.compress(text)),
        "no_speech_prob": None,
    }
