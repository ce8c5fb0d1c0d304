"""From audio to hypotheses: sorts clips by length, batches them, drafts, decodes."""

import math
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedTokenizerBase as Tokenizer

from finetune.data.audio import load_audio, load_segments
from finetune.data.features import log_mel, pad_features
from finetune.data.manifest import Utterance
from finetune.inference.decode import decode
from finetune.inference.draft import Draft, text_draft
from finetune.inference.draft_sources import ctc_texts
from finetune.inference.thresholds import Thresholds
from finetune.model.conformer import frame_mask
from finetune.model.ctc import entropy
from finetune.model.granite import Audio, GraniteSpeech
from finetune.model.prompt import encode_text, render


@dataclass(frozen=True)
class Hypothesis:
    """What was heard in one clip.

    `seconds` is the clip's share of its batch's time, the reading of files left out. `passes` counts runs of the
    language model, `drafted` and `accepted` draft tokens. `accepted_by` says who has written: `ctc` without a look of
    the language model, `draft` where one pass accepted all of it, else `llm`. `gave_up` if so much was refused that
    drafting paused.
    """

    id: str
    text: str
    tokens: tuple[int, ...]
    log_probability: float
    seconds: float
    passes: int
    drafted: int
    accepted: int
    truncated: bool
    accepted_by: str = "llm"
    gave_up: bool = False


@dataclass(frozen=True)
class DecodeOptions:
    """`batch_seconds` is padded audio in a batch; `speculative` drafts with the CTC head, and writes the same as
    greedy decoding unless there are `relaxed` thresholds."""

    instruction: str
    speculative: bool
    batch_seconds: float
    max_new_tokens: int
    relaxed: Thresholds | None = None


def batches(durations: list[float], batch_seconds: float) -> list[list[int]]:
    """Indices of clips, batch by batch; longest first, so that a batch too large fails at once."""
    order = sorted(range(len(durations)), key=lambda i: -durations[i])
    found: list[list[int]] = []
    for index in order:
        if found and durations[found[-1][0]] * (len(found[-1]) + 1) <= batch_seconds:
            found[-1].append(index)
        else:
            found.append([index])
    return found


def clip_features(model: GraniteSpeech, utterance: Utterance) -> Tensor:
    """Features (T, 160) of one utterance on the model's device. Raises DataError for unusable audio."""
    return _features(model, load_audio(utterance.audio_filepath, utterance.offset, utterance.duration))


def _features(model: GraniteSpeech, wave: NDArray[np.float32]) -> Tensor:
    return log_mel(torch.from_numpy(wave).to(model.device))


def _waves(items: Sequence[Utterance]) -> list[NDArray[np.float32]]:
    """The clips' samples; each file is opened once."""
    files: dict[str, list[int]] = {}
    for row, item in enumerate(items):
        files.setdefault(item.audio_filepath, []).append(row)
    found: dict[int, NDArray[np.float32]] = {}
    for path, rows in files.items():
        waves = load_segments(path, [(items[row].offset, items[row].duration) for row in rows])
        found |= dict(zip(rows, waves, strict=True))
    return [found[row] for row in range(len(items))]


def encode_batches(
    model: GraniteSpeech, utterances: Sequence[Utterance], batch_seconds: float
) -> Iterator[tuple[list[int], Audio, float]]:
    """Batch by batch: which clips it holds, what the encoder made of them, and in how many seconds.

    Raises:
        DataError: unusable audio.
    """
    for batch in batches([item.duration for item in utterances], batch_seconds):
        items = [utterances[index] for index in batch]
        waves = _waves(items)
        started = time.perf_counter()
        with torch.inference_mode():
            audio = model.encode(*pad_features([_features(model, wave) for wave in waves]))
        yield batch, audio, time.perf_counter() - started


@torch.inference_mode()
def recognize(model: GraniteSpeech, utterances: list[Utterance], options: DecodeOptions) -> list[Hypothesis]:
    """Hypotheses in the order given; neither the batch nor, unless relaxed, the draft changes a clip's tokens.

    Args:
        utterances: their keywords go into the prompt.
    """
    heard: dict[int, Hypothesis] = {}
    for batch, audio, hearing in encode_batches(model, utterances, options.batch_seconds):
        started = time.perf_counter()
        found = transcribe_batch(model, audio, [utterances[index] for index in batch], options)
        seconds = (hearing + time.perf_counter() - started) / len(batch)
        heard |= {index: replace(item, seconds=seconds) for index, item in zip(batch, found, strict=True)}
    return [heard[index] for index in range(len(utterances))]


@torch.inference_mode()
def transcribe_batch(
    model: GraniteSpeech, audio: Audio, items: Sequence[Utterance], options: DecodeOptions
) -> list[Hypothesis]:
    """Hypotheses of clips that the encoder has heard; their `seconds` are left at 0."""
    tokenizer = model.tokenizer
    drafts = [Draft(tokenizer) for _ in items]
    found: dict[int, Hypothesis] = {}
    if options.speculative:
        logits = model.ctc_logits(audio.states)
        texts = ctc_texts(logits, audio.num_frames.tolist())
        drafts = [
            text_draft(tokenizer, text, probs, _phrases(tokenizer, item.keywords))
            for item, (text, probs) in zip(items, texts, strict=True)
        ]
        if options.relaxed:
            doubts = entropy(logits).masked_fill(~frame_mask(audio.num_frames, logits.shape[1]), 0.0).amax(1).tolist()
            for row, (text, probs) in enumerate(texts):
                fits = len(drafts[row].tokens) < options.max_new_tokens  # else the language model cuts it, and says so
                if text and fits and doubts[row] < options.relaxed.max_entropy:
                    found[row] = Hypothesis(
                        items[row].id,
                        text,
                        tuple(drafts[row].tokens),
                        sum(map(math.log, probs)),
                        0.0,
                        0,
                        0,
                        0,
                        False,
                        "ctc",
                    )
    left = [row for row in range(len(items)) if row not in found]
    if left:
        counts = audio.num_tokens.tolist()
        rendered = {words: render(tokenizer, options.instruction, words) for words in {item.keywords for item in items}}
        prompts = [rendered[items[row].keywords].around(model.audio_token_id, counts[row]) for row in left]
        rows = decode(
            model,
            audio.rows(left),
            prompts,
            [drafts[row] for row in left],
            options.max_new_tokens,
            options.relaxed.min_probability if options.relaxed else None,
        )
        for row, out in zip(left, rows, strict=True):
            text = " ".join(str(tokenizer.decode(out.tokens, skip_special_tokens=True)).split())
            found[row] = Hypothesis(
                items[row].id,
                text,
                tuple(out.tokens),
                out.log_probability,
                0.0,
                out.passes,
                out.drafted,
                out.accepted,
                out.truncated,
                "draft" if out.passes == 1 and out.drafted else "llm",
                drafts[row].gave_up,
            )
    return [found[row] for row in range(len(items))]


def _phrases(tokenizer: Tokenizer, words: tuple[str, ...]) -> list[list[int]]:
    """Keywords as tokens, as they stand behind a space and at the beginning of a text."""
    return [encode_text(tokenizer, before + word) for word in words for before in (" ", "")]


def decoding_summary(heard: Sequence[Hypothesis]) -> dict[str, Any]:
    """How clips were decoded: the share of draft tokens accepted (None without any), LLM passes and seconds a clip,
    how many clips gave up drafting, and how many were written by whom."""
    drafted, clips = sum(item.drafted for item in heard), max(1, len(heard))
    return {
        "acceptance": sum(item.accepted for item in heard) / drafted if drafted else None,
        "passes": sum(item.passes for item in heard) / clips,
        "seconds": sum(item.seconds for item in heard) / clips,
        "gave_up": sum(item.gave_up for item in heard),
        "accepted_by": dict(Counter(item.accepted_by for item in heard)),
    }
