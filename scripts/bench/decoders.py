"""Decoders of the benchmark: transformers' generate, IBM's all-or-nothing drafts, this toolkit's, and a lower bound."""

import random
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

from finetune.core.options import INSTRUCTION, DecodingOptions
from finetune.data.features import log_mel, pad_features
from finetune.data.manifest import Utterance
from finetune.inference.decode import decode
from finetune.inference.draft import Draft, token_text
from finetune.inference.draft_sources import ctc_drafts
from finetune.inference.recognize import Hypothesis, transcribe_batch
from finetune.inference.session import Session, open_session
from finetune.model.ctc import entropy
from finetune.model.granite import EncodedAudio, SpeechModel
from finetune.model.prompt import encode_text, render

ACCURATE = DecodingOptions("relaxed", max_entropy=0.7, min_probability=0.2)  # arXiv 2603.11243
FAST = DecodingOptions("relaxed", max_entropy=3.0, min_probability=0.1)  # arXiv 2603.11243
NOTEBOOK = DecodingOptions("relaxed", max_entropy=0.7, min_probability=0.1)  # IBM's speculative_decoding_notebook.ipynb


@dataclass(frozen=True, eq=False)
class Batch:
    """Utterances that are decoded together."""

    items: list[Utterance]
    waves: list[np.ndarray]  # (N,) samples at 16 kHz
    max_new_tokens: int
    drafts: list[list[int]] | None = None  # simulated drafts, which replace those of the CTC head


Decoder = Callable[[SpeechModel, Batch], list[Hypothesis]]


def encode(model: SpeechModel, batch: Batch) -> EncodedAudio:
    """Encodes the waveforms of a batch."""
    return model.encode(*pad_features([log_mel(torch.from_numpy(wave).to(model.device)) for wave in batch.waves]))


def prompts_of(model: SpeechModel, batch: Batch, counts: list[int]) -> list[list[int]]:
    """Prompts (B) with `counts` (B) audio tokens."""
    return [
        render(model.tokenizer, INSTRUCTION, item.keywords).around(model.audio_token_id, count)
        for item, count in zip(batch.items, counts, strict=True)
    ]


def hypothesis(
    model: SpeechModel, item: Utterance, tokens: list[int], passes: int, limit: int, accepted_by: str = "llm"
) -> Hypothesis:
    """A hypothesis from tokens, which are cut at the end of text."""
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


# -- other decoders --


def generate(model: SpeechModel, batch: Batch) -> list[Hypothesis]:
    """transformers' greedy `generate`, with the padding of IBM's processor.

    Waveforms are padded to the longest before the features are computed, and prompts are left-padded.
    """
    longest = max(len(wave) for wave in batch.waves)
    waves = [torch.from_numpy(wave).to(model.device) for wave in batch.waves]
    features = torch.stack([log_mel(F.pad(wave, (0, longest - len(wave)))) for wave in waves])
    frames = torch.tensor([len(wave) // 160 + 1 for wave in batch.waves]) // 2
    counts = model.num_audio_tokens(frames)
    ids = pad_sequence([torch.tensor(prompt) for prompt in prompts_of(model, batch, counts.tolist())], True, -1, "left")
    inputs = {
        "input_ids": ids.masked_fill(ids < 0, model.tokenizer.pad_token_id),
        "attention_mask": (ids >= 0).long(),
        "input_features": features.to(model.lm_head.weight.dtype),
        "input_features_mask": torch.arange(int(counts.max()))[None, :] < counts[:, None],
    }
    inputs = {name: value.to(model.device) for name, value in inputs.items()}
    rows = model.hf.generate(**inputs, **_generate_options(model, batch))[:, ids.shape[1] :].tolist()
    return [_from_generate(model, item, row, batch.max_new_tokens) for item, row in zip(batch.items, rows, strict=True)]


def all_or_nothing(model: SpeechModel, batch: Batch) -> list[Hypothesis]:
    """The decoder of IBM's notebook.

    A CTC text with low entropy is final. Otherwise the language model reads the draft once, and accepts it if all of
    its tokens are probable; the end of text is not checked. Otherwise decoding starts from the prompt, which is
    computed again. Unlike the notebook this uses the encoder of this toolkit, and the entropy of real frames only: in a
    batch the notebook would include padding.
    """
    audio = encode(model, batch)
    logits, frames = model.ctc_logits(audio.states), audio.num_frames.tolist()
    texts = [text for text, _ in ctc_drafts(logits, frames)]
    entropies = [float(row[:count].max()) for row, count in zip(entropy(logits), frames, strict=True)]
    drafts = batch.drafts or [encode_text(model.tokenizer, text) for text in texts]
    prompts = prompts_of(model, batch, audio.num_tokens.tolist())
    done: dict[int, Hypothesis] = {}
    for row, (item, max_entropy) in enumerate(zip(batch.items, entropies, strict=True)):
        if max_entropy <= NOTEBOOK.max_entropy and batch.drafts is None:
            done[row] = hypothesis(model, item, drafts[row], 0, batch.max_new_tokens, "ctc")
    remaining = [row for row in range(len(frames)) if row not in done]
    if remaining:
        done |= _probable_drafts(model, batch, audio, prompts, drafts, remaining)
    remaining = [row for row in remaining if row not in done]
    if remaining:
        ids = pad_sequence([torch.tensor(prompts[row]) for row in remaining], True, -1, "left").to(model.device)
        embeds = model.embed(ids.clamp_min(0), audio.select(remaining))
        rows = model.hf.generate(
            inputs_embeds=embeds, attention_mask=(ids >= 0).long(), **_generate_options(model, batch)
        ).tolist()
        for row, tokens in zip(remaining, rows, strict=True):
            result = _from_generate(model, batch.items[row], tokens, batch.max_new_tokens)
            done[row] = replace(result, passes=result.passes + 1, drafted=len(drafts[row]))
    return [
        replace(done[row], drafted=len(drafts[row]), accepted=len(drafts[row]) * (done[row].accepted_by == "draft"))
        for row in range(len(frames))
    ]


def _probable_drafts(
    model: SpeechModel,
    batch: Batch,
    audio: EncodedAudio,
    prompts: list[list[int]],
    drafts: list[list[int]],
    rows: list[int],
) -> dict[int, Hypothesis]:
    """The drafts of these rows of which every token is probable enough, from one pass."""
    ids = pad_sequence([torch.tensor(prompts[row] + drafts[row]) for row in rows], True).to(model.device)
    embeds = model.embed(ids, audio.select(rows))
    hidden = model.language_model(inputs_embeds=embeds, use_cache=False).last_hidden_state
    accepted = {}
    for index, row in enumerate(rows):
        start, stop = len(prompts[row]) - 1, len(prompts[row]) + len(drafts[row]) - 1
        distributions = model.logits(hidden[index, start:stop]).softmax(-1)
        probs = distributions.gather(-1, ids[index, start + 1 : stop + 1, None])
        if bool((probs >= NOTEBOOK.min_probability).all()):
            accepted[row] = hypothesis(model, batch.items[row], drafts[row], 1, batch.max_new_tokens, "draft")
    return accepted


def _generate_options(model: SpeechModel, batch: Batch) -> dict[str, object]:
    return {
        "max_new_tokens": batch.max_new_tokens,
        "do_sample": False,
        "num_beams": 1,
        "eos_token_id": model.tokenizer.eos_token_id,
        "pad_token_id": model.tokenizer.pad_token_id,
    }


def _from_generate(model: SpeechModel, item: Utterance, tokens: list[int], limit: int) -> Hypothesis:
    """A hypothesis with one pass for each token, the end of text included."""
    result = hypothesis(model, item, tokens, 0, limit)
    return replace(result, passes=len(result.tokens) + (not result.truncated))


# -- decoders of this toolkit --


def toolkit(options: DecodingOptions) -> Decoder:
    """Decoding as in `recognize`; simulated drafts replace those of the CTC head."""

    def run(model: SpeechModel, batch: Batch) -> list[Hypothesis]:
        audio = encode(model, batch)
        if batch.drafts is not None and options.decoder != "greedy":
            return _decode_simulated(model, batch, audio, batch.drafts, options)
        limited = replace(options, max_new_tokens=batch.max_new_tokens)
        return transcribe_batch(model, audio, batch.items, INSTRUCTION, limited)

    return run


def _decode_simulated(
    model: SpeechModel, batch: Batch, audio: EncodedAudio, tokens: list[list[int]], options: DecodingOptions
) -> list[Hypothesis]:
    """Decodes with simulated drafts. The CTC head is computed too, because it is part of the measured time."""
    logits = model.ctc_logits(audio.states)
    ctc_drafts(logits, audio.num_frames.tolist())
    relaxed = options.decoder == "relaxed"
    if relaxed:
        entropy(logits).amax(1).tolist()
    drafts = [Draft(model.tokenizer, row, [1.0] * len(row), []) for row in tokens]
    return _decode_drafts(model, batch, audio, drafts, options, options.min_probability if relaxed else None)


def lookup_only(model: SpeechModel, batch: Batch) -> list[Hypothesis]:
    """Drafts from the prompt's keywords and the written text, without the CTC head."""
    drafts = [
        Draft(model.tokenizer, phrases=[encode_text(model.tokenizer, f" {word}") for word in item.keywords])
        for item in batch.items
    ]
    return _decode_drafts(model, batch, encode(model, batch), drafts, DecodingOptions())


def _decode_drafts(
    model: SpeechModel,
    batch: Batch,
    audio: EncodedAudio,
    drafts: list[Draft],
    options: DecodingOptions,
    min_probability: float | None = None,
) -> list[Hypothesis]:
    prompts = prompts_of(model, batch, audio.num_tokens.tolist())
    session = open_session(model, prompts, batch.max_new_tokens, options.cuda_graphs)
    rows = decode(model, audio, prompts, drafts, batch.max_new_tokens, min_probability, session)
    return [
        replace(
            hypothesis(model, item, row.tokens, row.passes, batch.max_new_tokens),
            drafted=row.drafted,
            accepted=row.accepted,
            accepted_by="draft" if row.passes == 1 and row.drafted else "llm",
            gave_up=draft.gave_up,
        )
        for item, row, draft in zip(batch.items, rows, drafts, strict=True)
    ]


def floor(model: SpeechModel, batch: Batch) -> list[Hypothesis]:
    """A lower bound of the time: the encoder, and one pass over the prompts with the next token of each."""
    audio = encode(model, batch)
    prompts = prompts_of(model, batch, audio.num_tokens.tolist())
    hidden = Session(model, len(prompts)).read(prompts, audio)
    last = torch.tensor([len(prompt) for prompt in prompts]).cumsum(0) - 1
    tokens = model.logits(hidden[last.to(hidden.device)]).argmax(-1).tolist()
    return [hypothesis(model, item, [token], 1, 1) for item, token in zip(batch.items, tokens, strict=True)]


DECODERS: dict[str, Decoder] = {
    "generate": generate,
    "greedy": toolkit(DecodingOptions("greedy")),
    "lossless": toolkit(DecodingOptions("speculative")),
    "greedy-graphs": toolkit(DecodingOptions("greedy", cuda_graphs=True)),
    "lossless-graphs": toolkit(DecodingOptions("speculative", cuda_graphs=True)),
    "accurate": toolkit(ACCURATE),
    "fast": toolkit(FAST),
    "ibm": all_or_nothing,
    "look-up": lookup_only,
    "floor": floor,
}
NAMES = {
    "generate": "transformers generate",
    "greedy": "greedy",
    "lossless": "lossless",
    "greedy-graphs": "greedy, CUDA graphs",
    "lossless-graphs": "lossless, CUDA graphs",
    "accurate": "relaxed 0.7 / 0.2",
    "fast": "relaxed 3.0 / 0.1",
    "ibm": "IBM, all or nothing",
    "look-up": "prompt lookup only",
    "floor": "floor: encoder, prefill",
}


# -- simulated drafts --


def corrupt(model: SpeechModel, tokens: list[int], error_rate: float, seed: int) -> list[int]:
    """Replaces, deletes or doubles this fraction of the words, in equal parts; a word begins with a space."""
    rng, words = random.Random(seed), list[list[int]]()
    for token in tokens:
        if words and not token_text(model.tokenizer, token).startswith(" "):
            words[-1].append(token)
        else:
            words.append([token])
    for index in rng.sample(range(len(words)), round(error_rate * len(words))):
        words[index] = rng.choice([[rng.choice(tokens)], [], words[index] * 2])
    return [token for word in words for token in word]


def set_random_weights(model: SpeechModel) -> None:
    """Sets random weights for which greedy text does not loop and does not end.

    The text has only the tokens of the small tokenizer, because the text of others is not known.
    """
    generator = torch.Generator(model.device).manual_seed(5)

    def fill(weight: Tensor, scale: float) -> None:
        weight.normal_(0, scale, generator=generator)

    with torch.no_grad():
        for parameter in model.language_model.parameters():
            if parameter.ndim == 2:
                fill(parameter, 2 * parameter.shape[-1] ** -0.5)
        fill(model.lm_head.weight, 1.0)
        model.lm_head.weight[min(map(int, (model.tokenizer.eos_token_id, model.tokenizer.pad_token_id))) :] = 0
