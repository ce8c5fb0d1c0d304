"""Transcribes utterances in batches: sorts by length, encodes, drafts with a CTC head, decodes."""

import math
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedTokenizerBase as Tokenizer

from finetune.core.options import DecodingOptions
from finetune.core.progress import advance
from finetune.data.audio import load_segments, load_utterance
from finetune.data.features import log_mel, pad_features
from finetune.data.manifest import Utterance, seconds_of
from finetune.data.read_ahead import fetch_all
from finetune.data.row_prompt import has_ctc_text, instruction_of
from finetune.inference.beam_search import decode_beams, decoded_text
from finetune.inference.decode import DecodedRow, decode
from finetune.inference.draft import Draft, text_draft
from finetune.inference.draft_sources import CtcText, draft_texts
from finetune.inference.keyword_biasing import biased_text
from finetune.model.granite import EncodedAudio, SpeechModel
from finetune.model.prompt import encode_text, render

# The cost of an encoder call beside its frames, in seconds of audio: calls, reading the weights. On one CPU core
# the embedded model has 1.2 to 1.5; the CUDA value is an estimate.
ENCODER_COST = {"cpu": 1.5, "cuda": 15.0}
Waveform = NDArray[np.float32]
Loader = Callable[[Sequence[Utterance]], list[Waveform]]


@dataclass(frozen=True)
class Hypothesis:
    """The text of one utterance, and how it was decoded.

    Attributes:
        tokens: those of the language model; its text can have other words if keywords are written by the CTC head.
        seconds: computing time of the batch divided by its number of utterances, without reading files.
        passes: forward passes of the language model.
        drafted: draft tokens that were proposed.
        accepted: draft tokens that were accepted.
        truncated: the text reached `max_new_tokens`.
        accepted_by: `ctc` if the CTC text was kept without the language model (relaxed decoding only), `draft` if one
            pass accepted the whole draft, else `llm`.
        gave_up: drafting paused because too many draft tokens were rejected.
        without_keywords: the text before keywords were written by the CTC head; None if there were none.
    """

    id: str
    text: str
    tokens: tuple[int, ...]
    log_probability: float
    seconds: float = 0.0
    passes: int = 0
    drafted: int = 0
    accepted: int = 0
    truncated: bool = False
    accepted_by: str = "llm"
    gave_up: bool = False
    without_keywords: str | None = None


def batches(durations: list[float], batch_seconds: float) -> list[list[int]]:
    """Indices of utterances by batch, longest first, so that a batch that does not fit into memory fails at once."""
    order = sorted(range(len(durations)), key=lambda i: -durations[i])
    plan: list[list[int]] = []
    for index in order:
        if plan and durations[plan[-1][0]] * (len(plan[-1]) + 1) <= batch_seconds:
            plan[-1].append(index)
        else:
            plan.append([index])
    return plan


def encoder_groups(durations: Sequence[float], call_cost: float) -> list[int]:
    """Divides a batch into groups of similar lengths, with the least padded audio and calls together.

    Args:
        durations: of the clips, longest first.
        call_cost: of each group, in seconds of audio.

    Returns:
        The number of clips in each group, in order.
    """
    best: list[tuple[float, int]] = [(0.0, 0)]  # of the first n clips: the cost, and the start of the last group
    for end in range(1, len(durations) + 1):
        costs = ((best[start][0] + call_cost + durations[start] * (end - start), start) for start in range(end))
        best.append(min(costs))
    groups, end = list[int](), len(durations)
    while end:
        start = best[end][1]
        groups.append(end - start)
        end = start
    return groups[::-1]


def clip_features(model: SpeechModel, utterance: Utterance) -> Tensor:
    """Features (T, 160) of one utterance on the model's device. Raises DataError for unusable audio."""
    return _features(model, load_utterance(utterance))


def load_waveforms(utterances: Sequence[Utterance]) -> list[Waveform]:
    """The samples (N,) of each utterance; each file is opened once. Raises DataError for unusable audio."""
    by_file: dict[str, list[int]] = {}
    for row, item in enumerate(utterances):
        by_file.setdefault(item.audio_filepath, []).append(row)
    waves: dict[int, Waveform] = {}
    for source, rows in zip(fetch_all([*by_file]), by_file.values(), strict=True):
        chosen = [utterances[row] for row in rows]
        segments = load_segments(source, [(item.offset, item.duration, item.channel) for item in chosen])
        waves |= dict(zip(rows, segments, strict=True))
    return [waves[row] for row in range(len(utterances))]


def encode_batches(
    model: SpeechModel,
    utterances: Sequence[Utterance],
    batch_seconds: float,
    load: Loader = load_waveforms,
    grouped: bool = False,
) -> Iterator[tuple[list[int], EncodedAudio, float]]:
    """Encodes utterances batch by batch.

    Args:
        load: returns the samples (N,) at 16 kHz of some of the utterances.
        grouped: encode clips of similar lengths together, to compute less padding; a batch can be several calls.

    Yields:
        The indices of a batch, its encoder output, and the seconds that encoding took.

    Raises:
        DataError: unusable audio.
    """
    for batch in batches([item.duration for item in utterances], batch_seconds):
        waves = iter(load([utterances[index] for index in batch]))
        durations = [utterances[index].duration for index in batch]
        sizes = encoder_groups(durations, ENCODER_COST[model.device.type]) if grouped else [len(batch)]
        started = time.perf_counter()
        with torch.inference_mode():
            parts = [
                model.encode(*pad_features([_features(model, wave) for wave in islice(waves, size)])) for size in sizes
            ]
            audio = EncodedAudio.concat(parts)
        yield batch, audio, time.perf_counter() - started


@torch.inference_mode()
def recognize(
    model: SpeechModel, utterances: Sequence[Utterance], instruction: str, options: DecodingOptions
) -> list[Hypothesis]:
    """Hypotheses of the utterances, in order.

    The tokens of an utterance do not depend on its batch. They depend on the draft only if decoding is relaxed.

    Args:
        utterances: their keywords are used as `options.keyword_method` says.
        instruction: the instruction of utterances without a task, a style or an instruction of their own.

    Raises:
        DataError: unusable audio.
    """
    hypotheses: dict[int, Hypothesis] = {}
    for batch, audio, encoding_seconds in encode_batches(model, utterances, options.batch_seconds):
        started = time.perf_counter()
        rows = transcribe_batch(model, audio, [utterances[index] for index in batch], instruction, options)
        seconds = (encoding_seconds + time.perf_counter() - started) / len(batch)
        hypotheses |= {index: replace(row, seconds=seconds) for index, row in zip(batch, rows, strict=True)}
        advance(seconds_of(utterances[index] for index in batch))
    return [hypotheses[index] for index in range(len(utterances))]


@torch.inference_mode()
def transcribe_batch(
    model: SpeechModel, audio: EncodedAudio, utterances: Sequence[Utterance], instruction: str, options: DecodingOptions
) -> list[Hypothesis]:
    """Hypotheses of encoded utterances. Their `seconds` are 0.

    A text that the CTC head cannot write, such as a translation, is decoded without a draft (`has_ctc_text`).
    """
    tokenizer = model.tokenizer
    drafts = [Draft(tokenizer) for _ in utterances]
    hypotheses: dict[int, Hypothesis] = {}
    if options.decoder in ("speculative", "relaxed"):
        read, bpe_head = draft_texts(model, audio, options.decoder == "relaxed"), model.bpe_head is not None
        texts = [text if has_ctc_text(item, bpe_head) else None for item, text in zip(utterances, read, strict=True)]
        drafts = [
            text_draft(tokenizer, text.text, text.probs, _phrases(tokenizer, options.in_prompt(item.keywords)))
            if text is not None
            else Draft(tokenizer)
            for item, text in zip(utterances, texts, strict=True)
        ]
        if options.decoder == "relaxed":
            hypotheses = _confident_ctc_texts(utterances, texts, drafts, options)
    remaining = [row for row in range(len(utterances)) if row not in hypotheses]
    if remaining:
        counts = audio.num_tokens.tolist()
        asked = [
            (instruction_of(item, instruction, model.profile), options.in_prompt(item.keywords)) for item in utterances
        ]
        prompts = {prompt: render(tokenizer, *prompt, model.profile) for prompt in {*asked}}
        decoded = _decode(
            model,
            audio.select(remaining),
            [prompts[asked[row]].around(model.audio_token_id, counts[row]) for row in remaining],
            [drafts[row] for row in remaining],
            [has_ctc_text(utterances[row]) for row in remaining],
            options,
        )
        for row, out in zip(remaining, decoded, strict=True):
            hypotheses[row] = Hypothesis(
                id=utterances[row].id,
                text=decoded_text(model, out.tokens),
                tokens=tuple(out.tokens),
                log_probability=out.log_probability,
                passes=out.passes,
                drafted=out.drafted,
                accepted=out.accepted,
                truncated=out.truncated,
                accepted_by="draft" if out.passes == 1 and out.drafted else "llm",
                gave_up=drafts[row].gave_up,
            )
    return _with_keywords(model, audio, utterances, [hypotheses[row] for row in range(len(utterances))], options)


def _decode(
    model: SpeechModel,
    audio: EncodedAudio,
    prompts: list[list[int]],
    drafts: list[Draft],
    spelled: list[bool],
    options: DecodingOptions,
) -> list[DecodedRow]:
    """The rows of a batch, decoded by the language model; see `decode` and `decode_beams`."""
    if options.decoder == "beam":
        return decode_beams(model, audio, prompts, spelled, options)
    min_probability = options.min_probability if options.decoder == "relaxed" else None
    return decode(model, audio, prompts, drafts, options.max_new_tokens, min_probability)


def _with_keywords(
    model: SpeechModel,
    audio: EncodedAudio,
    utterances: Sequence[Utterance],
    hypotheses: list[Hypothesis],
    options: DecodingOptions,
) -> list[Hypothesis]:
    """The hypotheses with the keywords that the CTC head hears; it writes neither Japanese nor translations."""
    lists = [options.by_ctc(item.keywords) if has_ctc_text(item) else () for item in utterances]
    rows = [row for row, words in enumerate(lists) if words]
    if not rows:
        return hypotheses
    log_probs = model.ctc_logits(audio.states[rows]).float().log_softmax(-1).cpu().numpy()
    for row, scores, frames in zip(rows, log_probs, audio.num_frames[rows].tolist(), strict=True):
        text = hypotheses[row].text
        written = biased_text(scores[:frames], text, lists[row])
        hypotheses[row] = replace(hypotheses[row], text=written, without_keywords=text)
    return hypotheses


def _confident_ctc_texts(
    utterances: Sequence[Utterance], texts: Sequence[CtcText | None], drafts: list[Draft], options: DecodingOptions
) -> dict[int, Hypothesis]:
    """By row, the utterances that keep their CTC text, because its entropy is low in all frames (arXiv 2603.11243)."""
    confident = {}
    for row, text in enumerate(texts):
        fits = len(drafts[row].tokens) < options.max_new_tokens  # otherwise the language model truncates it
        if text is not None and text.text and fits and text.entropy < options.max_entropy:
            tokens = tuple(drafts[row].tokens)
            log_probability = sum(map(math.log, text.probs))
            confident[row] = Hypothesis(utterances[row].id, text.text, tokens, log_probability, accepted_by="ctc")
    return confident


def _features(model: SpeechModel, wave: Waveform) -> Tensor:
    return log_mel(torch.from_numpy(wave).to(model.device))


def _phrases(tokenizer: Tokenizer, words: tuple[str, ...]) -> list[list[int]]:
    """Tokens of the keywords, both after a space and at the start of a text."""
    return [encode_text(tokenizer, prefix + word) for word in words for prefix in (" ", "")]


def decoding_summary(hypotheses: Sequence[Hypothesis]) -> dict[str, Any]:
    """Statistics of decoding.

    Returns:
        `acceptance`: fraction of the draft tokens that were accepted, None without draft tokens; `passes` and `seconds`
        per clip; `gave_up`: number of clips that stopped drafting; `accepted_by`: number of clips by the source of
        their text.
    """
    drafted, clips = sum(item.drafted for item in hypotheses), max(1, len(hypotheses))
    return {
        "acceptance": sum(item.accepted for item in hypotheses) / drafted if drafted else None,
        "passes": sum(item.passes for item in hypotheses) / clips,
        "seconds": sum(item.seconds for item in hypotheses) / clips,
        "gave_up": sum(item.gave_up for item in hypotheses),
        "accepted_by": dict(Counter(item.accepted_by for item in hypotheses)),
    }
