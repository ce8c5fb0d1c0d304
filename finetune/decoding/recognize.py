"""From features to hypotheses: sorts clips by length, batches them, drafts, decodes."""

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from finetune.data.audio import load_audio
from finetune.data.features import log_mel, pad_features
from finetune.data.manifest import Utterance
from finetune.decoding.decode import decode
from finetune.decoding.draft import ctc_draft, no_draft
from finetune.model.granite import GraniteSpeech
from finetune.model.prompt import render


@dataclass(frozen=True)
class Hypothesis:
    """What was heard in one clip. `seconds` is the clip's share of its batch's time."""

    id: str
    text: str
    tokens: tuple[int, ...]
    log_probability: float
    seconds: float
    passes: int
    drafted: int
    accepted: int
    truncated: bool


def _batches(durations: list[float], batch_seconds: float) -> list[list[int]]:
    """Longest first, so that a batch too large fails at once."""
    order = sorted(range(len(durations)), key=lambda i: -durations[i])
    batches: list[list[int]] = []
    for index in order:
        if batches and durations[batches[-1][0]] * (len(batches[-1]) + 1) <= batch_seconds:
            batches[-1].append(index)
        else:
            batches.append([index])
    return batches


@dataclass(frozen=True)
class DecodeOptions:
    """`batch_seconds` is padded audio in a batch; `speculative` drafts with the CTC head."""

    instruction: str
    speculative: bool
    batch_seconds: float
    max_new_tokens: int


def clip_features(model: GraniteSpeech, utterance: Utterance) -> Tensor:
    """Features (T, 160) of one utterance on the model's device. Raises DataError for unusable audio."""
    wave = load_audio(utterance.audio_filepath, utterance.offset, utterance.duration)
    return log_mel(torch.from_numpy(wave).to(model.device))


@torch.inference_mode()
def recognize(model: GraniteSpeech, utterances: list[Utterance], options: DecodeOptions,
              progress: Callable[[int], None] | None = None) -> list[Hypothesis]:
    """Hypotheses in the order given; neither the batch nor the draft changes a clip's tokens.

    Args:
        utterances: their keywords go into the prompt.
        progress: called with the number of clips just done.
    """
    heard: dict[int, Hypothesis] = {}
    for batch in _batches([item.duration for item in utterances], options.batch_seconds):
        started = time.perf_counter()
        features, frames = pad_features([clip_features(model, utterances[index]) for index in batch])
        audio = model.listen(features, frames)
        drafts = [no_draft() for _ in batch]
        if options.speculative:
            logits = model.ctc_logits(audio.states)
            drafts = [ctc_draft(model.tokenizer, logits[row, :count]) for row, count in enumerate(frames.tolist())]
        prompts = [render(model.tokenizer, options.instruction, utterances[index].keywords).around(
                       model.audio_token_id, count)
                   for index, count in zip(batch, audio.num_tokens.tolist(), strict=True)]
        rows = decode(model, audio, prompts, drafts, options.max_new_tokens)
        seconds = (time.perf_counter() - started) / len(batch)
        for index, row in zip(batch, rows, strict=True):
            text = " ".join(str(model.tokenizer.decode(row.tokens, skip_special_tokens=True)).split())
            heard[index] = Hypothesis(utterances[index].id, text, tuple(row.tokens), row.log_probability, seconds,
                                      row.passes, row.drafted, row.accepted, row.truncated)
        if progress:
            progress(len(batch))
    return [heard[index] for index in range(len(utterances))]
