"""Greedy decoding of a batch. With drafts, a pass can accept several tokens, and the result stays the same.

Each pass reads the last token of each row and a part of its draft. The model's own greedy tokens are kept while they
equal the draft, and also the token after them, so the output does not depend on the draft (lossless speculative
decoding, arXiv 2211.17192, with greedy acceptance). Relaxed decoding also accepts draft tokens that the model finds
probable enough (arXiv 2603.11243); it is not lossless.
"""

import math
from dataclasses import dataclass, field
from itertools import islice
from typing import NamedTuple

import torch
from torch import Tensor

from finetune.inference.draft import Draft
from finetune.inference.session import Session
from finetune.model.granite import EncodedAudio, SpeechModel

# The cost of a pass, in units of one token read. PASS_COST is the cost for the whole batch: calls, and reading the
# weights (about operations per second divided by twice the weights read per second). ROW_COST is the cost for each row:
# its own token, and attention to earlier tokens. On one CPU core with AVX-512 the embedded model has 41 and 1.7
# (recipes/RESULTS.md); the CUDA value is an estimate.
PASS_COST = {"cpu": 32, "cuda": 256}
ROW_COST = 1.7


class Verdict(NamedTuple):
    """The token at one position after verification, its log probability, and whether the draft token was accepted."""

    token: int
    log_prob: float
    accepted: bool


@dataclass
class DecodedRow:
    """The tokens of one row, its `passes` of the language model, and its proposed and accepted draft tokens."""

    tokens: list[int] = field(default_factory=list)
    log_probability: float = 0.0
    passes: int = 0
    drafted: int = 0
    accepted: int = 0
    truncated: bool = False

    def extend(self, verdicts: list[Verdict], accepted: int, eos: int, max_new_tokens: int) -> list[int]:
        """Adds the accepted tokens of a pass and the token after them, up to the end of text.

        Returns:
            The tokens that were added; at most `accepted` tokens if the row reached the end of text.
        """
        new_tokens = [verdict.token for verdict in verdicts[: accepted + 1]]
        self.log_probability += sum(verdict.log_prob for verdict in verdicts[: accepted + 1])
        if eos in new_tokens:
            new_tokens = new_tokens[: new_tokens.index(eos)]
        self.tokens += new_tokens
        self.passes += 1
        self.drafted += len(verdicts) - 1
        self.accepted += min(accepted, len(new_tokens))
        self.truncated = len(self.tokens) >= max_new_tokens
        return new_tokens


@torch.inference_mode()
def decode(
    model: SpeechModel,
    audio: EncodedAudio,
    prompts: list[list[int]],
    drafts: list[Draft],
    max_new_tokens: int,
    min_probability: float | None = None,
    session: Session | None = None,
    pass_cost: float | None = None,
) -> list[DecodedRow]:
    """Greedy continuation of each prompt up to the end of text.

    Args:
        model: the model to decode with.
        audio: the batch's clips, whose embeddings replace the `<|audio|>` positions of `prompts`.
        prompts: (B) token ids, of any lengths.
        drafts: (B) drafts, updated in place; an empty draft gives plain greedy decoding.
        max_new_tokens: limit for each row, at least 1; a row that reaches it is `truncated`.
        min_probability: for relaxed decoding, accepts a draft token of at least this probability; None is lossless.
        session: decoding state of the batch; by default a new one.
        pass_cost: cost of a pass in tokens; the default depends on the device.

    Returns:
        (B) decoded rows.
    """
    rows = [DecodedRow() for _ in prompts]
    session = Session(model, len(prompts)) if session is None else session
    pass_cost = PASS_COST[model.device.type] if pass_cost is None else pass_cost
    active, inputs = list(range(len(prompts))), prompts
    while active:
        # An accepted token saves the row's share of one more pass; each proposed token costs 1.
        # Below 0.5 other tokens than the model's own are kept, so what is proposed must not depend on the other rows.
        sharing = len(active) if min_probability is None or min_probability >= 0.5 else 1
        min_prob = sharing / (pass_cost + ROW_COST * sharing)
        proposals = [drafts[row].propose(max_new_tokens - len(rows[row].tokens) - 1, min_prob) for row in active]
        hidden = session.read(
            [read + proposal for read, proposal in zip(inputs, proposals, strict=True)],
            audio if inputs is prompts else None,
        )
        batch_verdicts = _verify_draft(model, hidden, inputs, proposals, min_probability)
        unfinished, inputs = [], []
        for index, (row, verdicts) in enumerate(zip(active, batch_verdicts, strict=True)):
            num_proposed = len(verdicts) - 1
            accepted = next((n for n, verdict in enumerate(verdicts[:-1]) if not verdict.accepted), num_proposed)
            session.forget(index, num_proposed - accepted)
            new_tokens = rows[row].extend(verdicts, accepted, model.tokenizer.eos_token_id, max_new_tokens)
            if len(new_tokens) <= accepted or rows[row].truncated:
                continue
            drafts[row].observe(accepted, new_tokens)
            unfinished.append(index)
            inputs.append(new_tokens[-1:])
        if unfinished and len(unfinished) < len(active):
            session.select(unfinished)
        active = [active[index] for index in unfinished]
    return rows


def _verify_draft(
    model: SpeechModel,
    hidden: Tensor,
    inputs: list[list[int]],
    proposals: list[list[int]],
    min_probability: float | None,
) -> list[list[Verdict]]:
    """For each row, a verdict after its last input token and after each proposed token.

    The last verdict of a row is never `accepted`, because no draft token follows. All results are copied from the
    device at once, because each copy waits until the device has finished.

    Args:
        model: the model to decode with.
        hidden: (N, H) hidden states of the inputs and proposals of all rows.
        inputs: (B) tokens read before the proposals.
        proposals: (B) draft tokens.
        min_probability: as in `decode`.
    """
    positions, start = list[int](), 0
    for read, proposal in zip(inputs, proposals, strict=True):
        positions += range(start + len(read) - 1, start + len(read) + len(proposal))
        start += len(read) + len(proposal)
    drafted = torch.tensor([token for proposal in proposals for token in (*proposal, -1)], device=hidden.device)
    logits = model.logits(hidden if len(positions) == start else hidden[torch.tensor(positions, device=hidden.device)])
    log_normalizer = logits.logsumexp(-1)
    token_logits, tokens = logits.max(-1)
    accepted = tokens == drafted
    if min_probability is not None:
        draft_logits = logits.gather(-1, drafted.clamp_min(0)[:, None])[:, 0]
        accepted |= (draft_logits - log_normalizer >= math.log(min_probability)) & (drafted >= 0)
        tokens = torch.where(accepted, drafted, tokens)
        token_logits = torch.where(accepted, draft_logits, token_logits)
    columns = (tokens, token_logits - log_normalizer, accepted)
    table = torch.stack([column.double() for column in columns], 1).tolist()
    verdicts = (Verdict(int(token), log_prob, bool(accept)) for token, log_prob, accept in table)
    return [list(islice(verdicts, len(proposal) + 1)) for proposal in proposals]
