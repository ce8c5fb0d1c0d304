"""Greedy decoding in batches; with drafts, several tokens a pass and still exactly the greedy ones.

A pass feeds each row its last token and a part of its draft. The model's own greedy choices are kept as long as they
equal the draft, plus the one after it, so the output never depends on the draft (lossless speculative decoding,
arXiv 2211.17192, with greedy acceptance). Relaxed decoding also keeps a draft token that the model holds likely
enough (arXiv 2603.11243), and is not lossless.
"""

import math
from dataclasses import dataclass, field
from itertools import islice

import torch
from torch import Tensor

from finetune.inference.draft import Draft
from finetune.inference.session import Session
from finetune.model.granite import EncodedAudio, GraniteSpeech

# What a pass costs, counted in tokens that it reads. For all rows together: calls, and reading the weights (about
# operations a second over twice the weights read a second). For each row: its own token, and its past. The embedded
# model had 41 and 1.7 on one CPU core with AVX-512 (recipes/RESULTS.md); those of CUDA are estimates.
FREE_TOKENS = {"cpu": 32, "cuda": 256}
ROW_TOKENS = 1.7


@dataclass
class Decoded:
    """What one row wrote, and how: `passes` of the LLM, draft tokens offered and accepted."""

    tokens: list[int] = field(default_factory=list)
    log_probability: float = 0.0
    passes: int = 0
    drafted: int = 0
    accepted: int = 0
    truncated: bool = False


@torch.inference_mode()
def decode(
    model: GraniteSpeech,
    audio: EncodedAudio,
    prompts: list[list[int]],
    drafts: list[Draft],
    max_new_tokens: int,
    plausible: float | None = None,
) -> list[Decoded]:
    """Greedy continuation of each prompt up to the end of text.

    Args:
        audio: the batch's clips, whose embeddings fill the `<|audio|>` positions of `prompts`.
        prompts: (B) token ids, of any lengths.
        drafts: (B) guesses; an empty one gives plain greedy decoding. They are used up.
        max_new_tokens: a row that reaches it without an end of text is `truncated`.
        plausible: a draft token of at least this probability is kept too; None keeps the model's own choices alone.
    """
    eos = model.tokenizer.eos_token_id
    done = [Decoded() for _ in prompts]
    session = Session(model, len(prompts))
    active, feed = list(range(len(prompts))), prompts
    while active:
        # An accepted token saves its row's share of one more pass; every token costs itself.
        min_prob = len(active) / (FREE_TOKENS[model.device.type] + ROW_TOKENS * len(active))
        offers = [drafts[row].propose(max_new_tokens - len(done[row].tokens) - 1, min_prob) for row in active]
        hidden = session.read(
            [fed + offer for fed, offer in zip(feed, offers, strict=True)], audio if feed is prompts else None
        )
        verdicts = _verify_draft(model, hidden, feed, offers, plausible)
        kept, feed = [], []
        for index, (row, offer, verdict) in enumerate(zip(active, offers, verdicts, strict=True)):
            out = done[row]
            agreed = next((n for n, (_, _, right) in enumerate(verdict[:-1]) if not right), len(offer))
            session.forget(index, len(offer) - agreed)
            fresh = [*offer[:agreed], verdict[agreed][0]]
            out.log_probability += sum(score for _, score, _ in verdict[: agreed + 1])
            if eos in fresh:
                fresh = fresh[: fresh.index(eos)]
            fresh = fresh[: max_new_tokens - len(out.tokens)]
            out.tokens += fresh
            out.passes += 1
            out.drafted += len(offer)
            out.accepted += min(agreed, len(fresh))
            out.truncated = len(out.tokens) >= max_new_tokens
            if len(fresh) <= agreed or out.truncated:
                continue
            drafts[row].observe(agreed, fresh)
            kept.append(index)
            feed.append(fresh[-1:])
        if kept and len(kept) < len(active):
            session.select(kept)
        active = [active[index] for index in kept]
    return done


def _verify_draft(
    model: GraniteSpeech, hidden: Tensor, feed: list[list[int]], offers: list[list[int]], plausible: float | None
) -> list[list[tuple[int, float, bool]]]:
    """For each row, at its last fed token and at each offered one: what comes next, its log probability, and
    whether that is what the draft says (the last has no draft to agree with).

    All of it comes from the device in one copy, for each copy waits until the device has done what was asked.
    """
    asked, start = list[int](), 0
    for fed, offer in zip(feed, offers, strict=True):
        asked += range(start + len(fed) - 1, start + len(fed) + len(offer))
        start += len(fed) + len(offer)
    drafted = torch.tensor([token for offer in offers for token in (*offer, -1)], device=hidden.device)
    logits = model.logits(hidden if len(asked) == start else hidden[torch.tensor(asked, device=hidden.device)])
    total = logits.logsumexp(-1)
    best, choice = logits.max(-1)
    right = choice == drafted
    if plausible is not None:
        guess = logits.gather(-1, drafted.clamp_min(0)[:, None])[:, 0]
        right |= (guess - total >= math.log(plausible)) & (drafted >= 0)
        choice, best = torch.where(right, drafted, choice), torch.where(right, guess, best)
    judged = torch.stack([column.double() for column in (choice, best - total, right)], 1).tolist()
    rows = ((int(token), score, bool(agrees)) for token, score, agrees in judged)
    return [list(islice(rows, len(offer) + 1)) for offer in offers]
