"""Ways to decode a batch of clips: transformers' generate, IBM's all-or-nothing drafts, ours, and the floor of all."""

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from unittest.mock import patch

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

from finetune.core.options import INSTRUCTION, DecodingOptions
from finetune.data.features import log_mel, pad_features
from finetune.data.manifest import Utterance
from finetune.inference.decode import decode
from finetune.inference.draft import Draft, piece
from finetune.inference.draft_sources import ctc_texts
from finetune.inference.recognize import Hypothesis, transcribe_batch
from finetune.inference.session import Session
from finetune.model.ctc import entropy
from finetune.model.granite import EncodedAudio, GraniteSpeech
from finetune.model.prompt import encode_text, render

ACCURATE = DecodingOptions("relaxed", max_entropy=0.7, min_probability=0.2)  # arXiv 2603.11243
FAST = DecodingOptions("relaxed", max_entropy=3.0, min_probability=0.1)  # arXiv 2603.11243
NOTEBOOK = DecodingOptions("relaxed", max_entropy=0.7, min_probability=0.1)  # IBM's speculative_decoding_notebook.ipynb


@dataclass(frozen=True, eq=False)
class Batch:
    """Clips decoded together, with waveforms (N,) at 16 kHz; `drafts` in place of the CTC head's, where simulated."""

    items: list[Utterance]
    waves: list[np.ndarray]
    max_new_tokens: int
    drafts: list[list[int]] | None = None


Way = Callable[[GraniteSpeech, Batch], list[Hypothesis]]


def hear(model: GraniteSpeech, batch: Batch) -> EncodedAudio:
    return model.encode(*pad_features([log_mel(torch.from_numpy(wave).to(model.device)) for wave in batch.waves]))


def prompts_of(model: GraniteSpeech, batch: Batch, counts: list[int]) -> list[list[int]]:
    return [
        render(model.tokenizer, INSTRUCTION, item.keywords).around(model.audio_token_id, count)
        for item, count in zip(batch.items, counts, strict=True)
    ]


def result(
    model: GraniteSpeech, item: Utterance, tokens: list[int], passes: int, limit: int, accepted_by: str = "llm"
) -> Hypothesis:
    """Of tokens that may hold an end of text, and what follows it."""
    eos = model.tokenizer.eos_token_id
    tokens = tokens[: tokens.index(eos)] if eos in tokens else tokens
    return Hypothesis(
        item.id,
        " ".join(model.tokenizer.decode(tokens).split()),
        tuple(tokens),
        0.0,
        0.0,
        passes,
        0,
        0,
        len(tokens) >= limit,
        accepted_by,
    )


# -- others --


def generate(model: GraniteSpeech, batch: Batch) -> list[Hypothesis]:
    """transformers' `generate`, greedy, with the batch as IBM's processor pads it: waveforms to the longest before
    their features are made, prompts at the left."""
    longest = max(len(wave) for wave in batch.waves)
    waves = [torch.from_numpy(wave).to(model.device) for wave in batch.waves]
    features = torch.stack([log_mel(F.pad(wave, (0, longest - len(wave)))) for wave in waves])
    frames = torch.tensor([len(wave) // 160 + 1 for wave in batch.waves]) // 2
    counts = model.num_audio_tokens(frames)
    ids = pad_sequence([torch.tensor(prompt) for prompt in prompts_of(model, batch, counts.tolist())], True, -1, "left")
    made = {
        "input_ids": ids.masked_fill(ids < 0, model.tokenizer.pad_token_id),
        "attention_mask": (ids >= 0).long(),
        "input_features": features.to(model.lm_head.weight.dtype),
        "input_features_mask": torch.arange(int(counts.max()))[None, :] < counts[:, None],
    }
    out = model.hf.generate(**{name: value.to(model.device) for name, value in made.items()}, **_settings(model, batch))
    rows = out[:, ids.shape[1] :].tolist()
    return [_generated(model, item, row, batch.max_new_tokens) for item, row in zip(batch.items, rows, strict=True)]


def all_or_nothing(model: GraniteSpeech, batch: Batch) -> list[Hypothesis]:
    """IBM's notebook: a sure CTC text is final; else the LLM reads the draft once and all of it must be likely, the
    end of text not asked for; else decoding starts again from the prompt, which is computed again.

    Our encoder on both sides, and entropy over real frames alone: in a batch the notebook's would count padding too.
    """
    audio = hear(model, batch)
    logits, frames = model.ctc_logits(audio.states), audio.num_frames.tolist()
    texts = [text for text, _ in ctc_texts(logits, frames)]
    doubts = [float(row[:count].max()) for row, count in zip(entropy(logits), frames, strict=True)]
    drafts = batch.drafts or [encode_text(model.tokenizer, text) for text in texts]
    prompts = prompts_of(model, batch, audio.num_tokens.tolist())
    done: dict[int, Hypothesis] = {}
    for row, (item, doubt) in enumerate(zip(batch.items, doubts, strict=True)):
        if doubt <= NOTEBOOK.max_entropy and batch.drafts is None:
            done[row] = result(model, item, drafts[row], 0, batch.max_new_tokens, "ctc")
    left = [row for row in range(len(frames)) if row not in done]
    if left:
        ids = pad_sequence([torch.tensor(prompts[row] + drafts[row]) for row in left], True).to(model.device)
        hidden = model.language_model(
            inputs_embeds=model.embed(ids, audio.select(left)), use_cache=False
        ).last_hidden_state
        for index, row in enumerate(left):
            start, stop = len(prompts[row]) - 1, len(prompts[row]) + len(drafts[row]) - 1
            likely = model.logits(hidden[index, start:stop]).softmax(-1)
            probs = likely.gather(-1, ids[index, start + 1 : stop + 1, None])
            if bool((probs >= NOTEBOOK.min_probability).all()):
                done[row] = result(model, batch.items[row], drafts[row], 1, batch.max_new_tokens, "draft")
    left = [row for row in left if row not in done]
    if left:
        ids = pad_sequence([torch.tensor(prompts[row]) for row in left], True, -1, "left").to(model.device)
        embeds = model.embed(ids.clamp_min(0), audio.select(left))
        rows = model.hf.generate(
            inputs_embeds=embeds, attention_mask=(ids >= 0).long(), **_settings(model, batch)
        ).tolist()
        for row, tokens in zip(left, rows, strict=True):
            found = _generated(model, batch.items[row], tokens, batch.max_new_tokens)
            done[row] = replace(found, passes=found.passes + 1, drafted=len(drafts[row]))
    return [
        replace(done[row], drafted=len(drafts[row]), accepted=len(drafts[row]) * (done[row].accepted_by == "draft"))
        for row in range(len(frames))
    ]


def _settings(model: GraniteSpeech, batch: Batch) -> dict[str, object]:
    return {
        "max_new_tokens": batch.max_new_tokens,
        "do_sample": False,
        "num_beams": 1,
        "eos_token_id": model.tokenizer.eos_token_id,
        "pad_token_id": model.tokenizer.pad_token_id,
    }


def _generated(model: GraniteSpeech, item: Utterance, tokens: list[int], limit: int) -> Hypothesis:
    """One pass a token, the end of text among them."""
    found = result(model, item, tokens, 0, limit)
    return replace(found, passes=len(found.tokens) + (not found.truncated))


# -- ours --


def ours(options: DecodingOptions) -> Way:
    def way(model: GraniteSpeech, batch: Batch) -> list[Hypothesis]:
        limited = replace(options, max_new_tokens=batch.max_new_tokens)
        with simulated(model, batch.drafts):
            return transcribe_batch(model, hear(model, batch), batch.items, INSTRUCTION, limited)

    return way


def look_up_alone(model: GraniteSpeech, batch: Batch) -> list[Hypothesis]:
    """Drafts from the prompt's keywords and the text already written, none from the CTC head."""
    audio = hear(model, batch)
    drafts = [
        Draft(model.tokenizer, phrases=[encode_text(model.tokenizer, f" {word}") for word in item.keywords])
        for item in batch.items
    ]
    rows = decode(model, audio, prompts_of(model, batch, audio.num_tokens.tolist()), drafts, batch.max_new_tokens)
    return [
        replace(
            result(model, item, row.tokens, row.passes, batch.max_new_tokens),
            drafted=row.drafted,
            accepted=row.accepted,
        )
        for item, row in zip(batch.items, rows, strict=True)
    ]


def floor(model: GraniteSpeech, batch: Batch) -> list[Hypothesis]:
    """The encoder and one pass over the prompts, with the next token of each: what every way must do."""
    audio = hear(model, batch)
    prompts = prompts_of(model, batch, audio.num_tokens.tolist())
    hidden = Session(model, len(prompts)).read(prompts, audio)
    last = torch.tensor([len(prompt) for prompt in prompts]).cumsum(0) - 1
    tokens = model.logits(hidden[last.to(hidden.device)]).argmax(-1).tolist()
    return [result(model, item, [token], 1, 1) for item, token in zip(batch.items, tokens, strict=True)]


WAYS: dict[str, Way] = {
    "generate": generate,
    "greedy": ours(DecodingOptions("greedy")),
    "lossless": ours(DecodingOptions("speculative")),
    "accurate": ours(ACCURATE),
    "fast": ours(FAST),
    "ibm": all_or_nothing,
    "look-up": look_up_alone,
    "floor": floor,
}
NAMES = {
    "generate": "transformers generate",
    "greedy": "greedy",
    "lossless": "lossless",
    "accurate": "relaxed 0.7 / 0.2",
    "fast": "relaxed 3.0 / 0.1",
    "ibm": "IBM's, all or nothing",
    "look-up": "look-up alone",
    "floor": "floor: encoder, prefill",
}


# -- simulated drafts --


def corrupt(model: GraniteSpeech, tokens: list[int], share: float, seed: int) -> list[int]:
    """Tokens with this share of their words replaced, dropped or doubled, in equal parts; words begin at a space."""
    rng, words = random.Random(seed), list[list[int]]()
    for token in tokens:
        if words and not piece(model.tokenizer, token).startswith(" "):
            words[-1].append(token)
        else:
            words.append([token])
    for index in rng.sample(range(len(words)), round(share * len(words))):
        words[index] = rng.choice([[rng.choice(tokens)], [], words[index] * 2])
    return [token for word in words for token in word]


@contextmanager
def simulated(model: GraniteSpeech, drafts: list[list[int]] | None) -> Iterator[None]:
    """The CTC head is read as ever, and then these drafts stand in place of its own."""
    if drafts is None:
        yield
        return
    made = iter([Draft(model.tokenizer, draft, [1.0] * len(draft), []) for draft in drafts])
    with patch("finetune.inference.recognize.text_draft", lambda *_: next(made)):
        yield


def enliven(model: GraniteSpeech) -> None:
    """Random weights large enough for a greedy text that never loops; it never ends, and has the tokens of the small
    tokenizer alone, whose text is known."""
    generator = torch.Generator(model.device).manual_seed(5)

    def fill(weight: Tensor, scale: float) -> None:
        weight.normal_(0, scale, generator=generator)

    with torch.no_grad():
        for parameter in model.language_model.parameters():
            if parameter.ndim == 2:
                fill(parameter, 2 * parameter.shape[-1] ** -0.5)
        fill(model.lm_head.weight, 1.0)
        model.lm_head.weight[min(map(int, (model.tokenizer.eos_token_id, model.tokenizer.pad_token_id))) :] = 0
