"""Greedy decoding in batches; with drafts, several tokens a pass and still exactly the greedy ones.

A pass feeds each row its last token and the rest of its draft. The model's own greedy choices are
kept as long as they equal the draft, plus the one after it, so the output never depends on the draft
(lossless speculative decoding, arXiv 2211.17192, with greedy acceptance).
"""

from dataclasses import dataclass, field

import torch

from finetune.decoding.draft import Draft
from finetune.decoding.session import Session
from finetune.model.granite import Audio, GraniteSpeech


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
def decode(model: GraniteSpeech, audio: Audio, prompts: list[list[int]], drafts: list[Draft],
           max_new_tokens: int) -> list[Decoded]:
    """Greedy continuation of each prompt up to the end of text.

    Args:
        audio: the batch's clips, whose embeddings fill the `<|audio|>` positions of `prompts`.
        prompts: (B) token ids, of any lengths.
        drafts: (B) guesses; an empty one gives plain greedy decoding. They are used up.
        max_new_tokens: a row that reaches it without an end of text is `truncated`.
    """
    eos = model.tokenizer.eos_token_id
    done = [Decoded() for _ in prompts]
    session = Session(model)
    active = list(range(len(prompts)))
    feed = [prompt + _offer(drafts[row], max_new_tokens) for row, prompt in enumerate(prompts)]
    anchors = [len(prompt) - 1 for prompt in prompts]  # where in `feed` the first choice is made
    while active:
        start = session.alive.shape[1]
        hidden = session.read(feed, audio if start == 0 else None)
        spans = [len(fed) - anchor for fed, anchor in zip(feed, anchors, strict=True)]
        states = torch.cat([hidden[i, anchors[i] : anchors[i] + spans[i]] for i in range(len(active))])
        best, choice = model.logits(states).log_softmax(-1).max(-1)
        choices, scores = torch.split(choice, spans), torch.split(best, spans)
        kept, next_feed = [], []
        for i, row in enumerate(active):
            offered = feed[i][anchors[i] + 1 :]
            chosen = choices[i].tolist()
            agreed = next((n for n, token in enumerate(offered) if token != chosen[n]), len(offered))
            session.forget(i, start + anchors[i] + 1 + agreed, start + len(feed[i]))
            out, draft = done[row], drafts[row]
            fresh = chosen[: agreed + 1]
            if eos in fresh:
                fresh = fresh[: fresh.index(eos)]
            fresh = fresh[: max_new_tokens - len(out.tokens)]
            out.tokens += fresh
            out.log_probability += float(scores[i][: agreed + 1].sum())
            out.passes += 1
            out.drafted += len(offered)
            out.accepted += min(agreed, len(fresh))
            out.truncated = len(out.tokens) >= max_new_tokens
            if len(fresh) <= agreed or out.truncated:
                continue
            draft.settle(agreed, fresh[-1])
            kept.append(i)
            next_feed.append([fresh[-1], *_offer(draft, max_new_tokens - len(out.tokens))])
        if kept and len(kept) < len(active):
            session.select(kept)
        active = [active[i] for i in kept]
        feed, anchors = next_feed, [0] * len(next_feed)
    return done


def _offer(draft: Draft, room: int) -> list[int]:
    """As much of the draft as can still be written."""
    return draft.rest()[: max(0, room - 1)]
