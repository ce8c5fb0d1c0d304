"""Transcribes utterances in batches: encodes, drafts with a CTC head, decodes."""

import math
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase as Tokenizer

from finetune.core.errors import ModelError
from finetune.core.options import DecodingOptions
from finetune.core.progress import advance
from finetune.data.manifest import Utterance, seconds_of
from finetune.data.row_prompt import has_ctc_text, instruction_of
from finetune.inference.beam_choice import choose
from finetune.inference.beam_search import beam_search
from finetune.inference.clip_windows import clip_windows
from finetune.inference.decode import decode
from finetune.inference.draft import Draft, text_draft
from finetune.inference.draft_sources import CtcText, draft_texts
from finetune.inference.encode import encode_batches
from finetune.inference.keyword_biasing import biased_text
from finetune.inference.segments import join_texts
from finetune.inference.session import open_session
from finetune.model.granite import EncodedAudio, SpeechModel
from finetune.model.prompt import encode_text, render


@dataclass(frozen=True)
class Hypothesis:
    """The text of one utterance, and how it was decoded.

    Attributes:
        tokens: those of the language model; its text can have other words if keywords are written by the CTC head.
        seconds: computing time of the batch divided by its number of windows, without reading files.
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


@torch.inference_mode()
def recognize(
    model: SpeechModel, utterances: Sequence[Utterance], instruction: str, options: DecodingOptions
) -> list[Hypothesis]:
    """Hypotheses of the utterances, in order; a long one is cut at pauses if `options.max_window` is set.

    The tokens of an utterance do not depend on its batch. They depend on the draft only if decoding is relaxed.

    Args:
        utterances: their keywords are used as `options.keyword_method` says.
        instruction: the instruction of utterances without a task, a style or an instruction of their own.

    Raises:
        DataError: unusable audio.
    """
    cut = [clip_windows(utterance, options.max_window) for utterance in utterances]
    windows = [window for parts in cut for window in parts]
    hypotheses: dict[int, Hypothesis] = {}
    for batch, audio, encoding_seconds in encode_batches(model, windows, options.batch_seconds):
        started = time.perf_counter()
        rows = transcribe_batch(model, audio, [windows[index] for index in batch], instruction, options)
        seconds = (encoding_seconds + time.perf_counter() - started) / len(batch)
        hypotheses |= {index: replace(row, seconds=seconds) for index, row in zip(batch, rows, strict=True)}
        advance(seconds_of(windows[index] for index in batch))
    advance(seconds_of(utterances) - seconds_of(windows))  # the pauses between windows
    decoded = (hypotheses[index] for index in range(len(windows)))
    return [joined(item, list(islice(decoded, len(parts)))) for item, parts in zip(utterances, cut, strict=True)]


def joined(utterance: Utterance, windows: Sequence[Hypothesis]) -> Hypothesis:
    """The hypothesis of an utterance from those of its windows (`clip_windows`)."""
    if len(windows) == 1:
        return replace(windows[0], id=utterance.id)
    sources = {item.accepted_by for item in windows}
    plain = [item.text if item.without_keywords is None else item.without_keywords for item in windows]
    return Hypothesis(
        id=utterance.id,
        text=join_texts(item.text for item in windows),
        tokens=tuple(token for item in windows for token in item.tokens),
        log_probability=sum(item.log_probability for item in windows),
        seconds=sum(item.seconds for item in windows),
        passes=sum(item.passes for item in windows),
        drafted=sum(item.drafted for item in windows),
        accepted=sum(item.accepted for item in windows),
        truncated=any(item.truncated for item in windows),
        accepted_by=sources.pop() if len(sources) == 1 else "llm",
        gave_up=any(item.gave_up for item in windows),
        without_keywords=None if all(item.without_keywords is None for item in windows) else join_texts(plain),
    )


@torch.inference_mode()
def transcribe_batch(
    model: SpeechModel, audio: EncodedAudio, utterances: Sequence[Utterance], instruction: str, options: DecodingOptions
) -> list[Hypothesis]:
    """Hypotheses of encoded utterances. Their `seconds` are 0.

    A text that the CTC head cannot write, such as a translation, is decoded without a draft (`has_ctc_text`).

    Raises:
        ModelError: the model computes NaN, and its texts would be the first token again and again.
    """
    hypotheses = _transcribe_batch(model, audio, utterances, instruction, options)
    if any(math.isnan(item.log_probability) for item in hypotheses):
        raise ModelError(
            f"{model.source}: the model computes NaN (not a number), so weights are damaged or the data type is too "
            "small for them; download or export it again, or compute in float32"
        )
    return hypotheses


def _transcribe_batch(
    model: SpeechModel, audio: EncodedAudio, utterances: Sequence[Utterance], instruction: str, options: DecodingOptions
) -> list[Hypothesis]:
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
    prompts = _prompts(model, audio, utterances, instruction, options)
    if options.decoder == "beam":
        return _best_of_beams(model, audio, utterances, prompts, options)
    remaining = [row for row in range(len(utterances)) if row not in hypotheses]
    if remaining:
        decoded = decode(
            model,
            audio.select(remaining),
            [prompts[row] for row in remaining],
            [drafts[row] for row in remaining],
            options.max_new_tokens,
            options.min_probability if options.decoder == "relaxed" else None,
            open_session(model, [prompts[row] for row in remaining], options.max_new_tokens, options.cuda_graphs),
        )
        for row, out in zip(remaining, decoded, strict=True):
            hypotheses[row] = Hypothesis(
                id=utterances[row].id,
                text=_text(model, out.tokens),
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


def _prompts(
    model: SpeechModel, audio: EncodedAudio, utterances: Sequence[Utterance], instruction: str, options: DecodingOptions
) -> list[list[int]]:
    """The tokens of each utterance's prompt."""
    asked = [
        (instruction_of(item, instruction, model.profile), options.in_prompt(item.keywords)) for item in utterances
    ]
    rendered = {prompt: render(model.tokenizer, *prompt, model.profile) for prompt in {*asked}}
    counts = audio.num_tokens.tolist()
    return [rendered[prompt].around(model.audio_token_id, count) for prompt, count in zip(asked, counts, strict=True)]


def _text(model: SpeechModel, tokens: Sequence[int]) -> str:
    return " ".join(str(model.tokenizer.decode([*tokens], skip_special_tokens=True)).split())


def _best_of_beams(
    model: SpeechModel,
    audio: EncodedAudio,
    utterances: Sequence[Utterance],
    prompts: list[list[int]],
    options: DecodingOptions,
) -> list[Hypothesis]:
    """Hypotheses by beam search, with the keywords that the CTC head hears."""
    spelled = [row for row, item in enumerate(utterances) if has_ctc_text(item)]
    evidence = dict(zip(spelled, _ctc_log_probs(model, audio, spelled), strict=True))
    searches = beam_search(model, audio, prompts, options.num_beams, options.max_new_tokens, options.cuda_graphs)
    hypotheses = list[Hypothesis]()
    for row, (item, search) in enumerate(zip(utterances, searches, strict=True)):
        texts, keywords = [_text(model, beam.tokens) for beam in search.best], options.by_ctc(item.keywords)
        choice = choose(search.best, texts, evidence.get(row), options.ctc_weight, keywords)
        hypotheses.append(
            Hypothesis(
                id=item.id,
                text=choice.text,
                tokens=choice.beam.tokens,
                log_probability=choice.beam.log_probability,
                passes=search.passes,
                truncated=not choice.beam.complete,
                without_keywords=choice.without_keywords,
            )
        )
    return hypotheses


def _ctc_log_probs(model: SpeechModel, audio: EncodedAudio, rows: list[int]) -> list[NDArray[np.float32]]:
    """For some rows, log probabilities (T, 348) of the CTC head for the real frames."""
    if not rows:
        return []
    log_probs = model.ctc_logits(audio.states[rows]).float().log_softmax(-1).cpu().numpy()
    return [scores[:frames] for scores, frames in zip(log_probs, audio.num_frames[rows].tolist(), strict=True)]


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
    for row, log_probs in zip(rows, _ctc_log_probs(model, audio, rows), strict=True):
        text = hypotheses[row].text
        written = biased_text(log_probs, text, lists[row])
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
