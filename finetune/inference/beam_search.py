"""Beam search: keeps several texts of a clip, and chooses the best one with the CTC head too.

The search is that of transformers' `generate` with `num_beams`, `length_penalty=1.0` and `early_stopping=False`. The
found texts are then scored again with the probability of the CTC head (the rescoring of hybrid CTC/attention decoding,
Watanabe et al. 2017, doi 10.1109/JSTSP.2017.2763455), which hears what the language model invents or leaves out.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from finetune.core.options import DecodingOptions
from finetune.inference.ctc_score import ANY, CtcScorer, words_of
from finetune.inference.decode import DecodedRow
from finetune.inference.session import Session
from finetune.model.granite import EncodedAudio, SpeechModel

ROWS = 64  # most beams that the language model reads in one pass; each has a cache of its own


@dataclass(frozen=True)
class Beam:
    """A text of a clip.

    Attributes:
        tokens: without the end of text.
        log_probability: sum of those of its tokens, and of the end of text if it is complete.
        complete: the end of text was written; else the text reached the limit.
    """

    tokens: tuple[int, ...]
    log_probability: float
    complete: bool = False

    def mean(self, ctc_log_probability: float = 0.0) -> float:
        """Log probability for each token, the end of text included; that of the CTC head is added to the sum."""
        return (self.log_probability + ctc_log_probability) / (len(self.tokens) + self.complete)


def decode_beams(
    model: SpeechModel,
    audio: EncodedAudio,
    prompts: Sequence[list[int]],
    spelled: Sequence[bool],
    options: DecodingOptions,
) -> list[DecodedRow]:
    """The best text of each clip.

    Args:
        model: the model to decode with.
        audio: the batch's clips, whose embeddings replace the `<|audio|>` positions of `prompts`.
        prompts: (B) token ids, of any lengths.
        spelled: (B) whether the CTC head can write the text of the clip; the other clips have no CTC score.
        options: `num_beams`, `ctc_weight` and `max_new_tokens` are used.

    Returns:
        (B) decoded rows, without drafts; `passes` are those of the clip's part of the batch.
    """
    rows = list[DecodedRow]()
    size = max(1, ROWS // options.num_beams)
    for first in range(0, len(prompts), size):
        part = list(range(first, min(first + size, len(prompts))))
        found = beam_search(
            model, audio.select(part), [prompts[row] for row in part], options.num_beams, options.max_new_tokens
        )
        scores: list[NDArray[np.float32] | None] = [None] * len(part)
        if options.ctc_weight and any(spelled[row] for row in part):
            log_probs = model.ctc_logits(audio.states[part]).float().log_softmax(-1).cpu().numpy()
            frames = audio.num_frames[part].tolist()
            scores = [log_probs[i, : frames[i]] if spelled[row] else None for i, row in enumerate(part)]
        for search, log_prob in zip(found, scores, strict=True):
            texts = [decoded_text(model, beam.tokens) for beam in search.best]
            best = search.best[best_text(search.best, texts, log_prob, options.ctc_weight)]
            rows.append(DecodedRow([*best.tokens], best.log_probability, search.passes, truncated=not best.complete))
    return rows


def decoded_text(model: SpeechModel, tokens: Sequence[int]) -> str:
    """The text of tokens, with single spaces."""
    return " ".join(str(model.tokenizer.decode([*tokens], skip_special_tokens=True)).split())


def best_text(
    beams: Sequence[Beam], texts: Sequence[str], log_probs: NDArray[np.float32] | None, ctc_weight: float
) -> int:
    """The index of the best text.

    Words that are not spelled as they sound, such as `25`, tell nothing to the CTC head. So it chooses among the texts
    that have the same ones as the text that is best without it.

    Args:
        beams: the best first.
        texts: those of the beams.
        log_probs: (T, 348) log probabilities of the CTC head for the clip's real frames; None to choose without them.
        ctc_weight: factor of the log probability of a text by the CTC head.
    """
    if log_probs is None or not ctc_weight:
        return 0
    scorer = CtcScorer(log_probs)
    words = [words_of(text) for text in texts]
    unspelled = [[word for word in row if scorer.labels_of(word) == [ANY]] for row in words]
    chosen = [index for index, row in enumerate(unspelled) if row == unspelled[0]]
    heard = scorer.scores([words[index] for index in chosen])
    totals = [beams[index].mean(ctc_weight * score) for index, score in zip(chosen, heard, strict=True)]
    return chosen[int(np.argmax(totals))]  # the first one if the frames are too few for any


@dataclass
class Search:
    """The search of one clip.

    Attributes:
        live: texts that can go on, the most probable first.
        best: the best finished texts, at most `num_beams`, the best first.
        passes: of the language model.
    """

    num_beams: int
    live: list[Beam] = field(default_factory=lambda: [Beam((), 0.0)])
    best: list[Beam] = field(default_factory=list)
    passes: int = 0

    def extend(self, next_tokens: list[tuple[float, int, int]], eos: int, max_new_tokens: int) -> list[int]:
        """Adds a token to the live texts.

        Args:
            next_tokens: the most probable continuations, the best first: log probability of the text with the token,
                index of the text in `live`, token.
            eos: the token of the end of text.
            max_new_tokens: the longest text.

        Returns:
            For each new live text, the index of the one that it continues; empty if the search is done.
        """
        live, parents = list[Beam](), list[int]()
        for rank, (log_probability, parent, token) in enumerate(next_tokens):
            tokens = self.live[parent].tokens
            if token != eos and len(live) < self.num_beams:
                live.append(Beam((*tokens, token), log_probability))
                parents.append(parent)
            elif token == eos and rank < self.num_beams:
                self.best.append(Beam(tokens, log_probability, complete=True))
        self.live, self.passes = live, self.passes + 1
        if not live or len(live[0].tokens) >= max_new_tokens:
            self.best += live
            parents = []
        self.best = sorted(self.best, key=lambda beam: -beam.mean())[: self.num_beams]
        if len(self.best) == self.num_beams and live and live[0].mean() <= self.best[-1].mean():
            parents = []
        return parents


@torch.inference_mode()
def beam_search(
    model: SpeechModel, audio: EncodedAudio, prompts: list[list[int]], num_beams: int, max_new_tokens: int
) -> list[Search]:
    """The finished search of each clip.

    Args:
        model, audio, prompts: as in `decode_beams`.
        num_beams: texts that are kept at each token.
        max_new_tokens: limit for each text, at least 1.
    """
    eos, searches = model.tokenizer.eos_token_id, [Search(num_beams) for _ in prompts]
    session = Session(model, len(prompts))
    ends = torch.tensor([len(prompt) for prompt in prompts], device=model.device).cumsum(0) - 1
    log_probs = _log_probs(model, session.read(prompts, audio)[ends])
    active = list(range(len(prompts)))
    while active:
        unfinished, rows, inputs, first = list[int](), list[int](), list[list[int]](), 0
        for index in active:
            search = searches[index]
            beams = log_probs[first : first + len(search.live)]
            parents = search.extend(_best_tokens(beams, search), eos, max_new_tokens)
            if parents:
                unfinished.append(index)
                rows += [first + parent for parent in parents]
                inputs += [[beam.tokens[-1]] for beam in search.live]
            first += len(beams)
        active = unfinished
        if active:
            session.select(rows)
            log_probs = _log_probs(model, session.read(inputs))
    return searches


def _log_probs(model: SpeechModel, hidden: Tensor) -> Tensor:
    return model.logits(hidden).float().log_softmax(-1)


def _best_tokens(log_probs: Tensor, search: Search) -> list[tuple[float, int, int]]:
    """The best continuations of the live texts, twice as many as beams, because some can be the end of text.

    Args:
        log_probs: (K, V) of the next token after each of the K live texts.
    """
    before = log_probs.new_tensor([beam.log_probability for beam in search.live])
    best = (log_probs + before[:, None]).flatten().topk(min(2 * search.num_beams, log_probs.numel()))
    tokens = [divmod(index, log_probs.shape[1]) for index in best.indices.tolist()]
    return [(value, parent, token) for value, (parent, token) in zip(best.values.tolist(), tokens, strict=True)]
