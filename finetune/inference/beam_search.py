"""Beam search: keeps several texts of each clip, those that the language model finds most probable.

The search is that of transformers' `generate` with `num_beams`, `length_penalty=1.0` and `early_stopping=False`.
"""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from finetune.inference.session import open_session
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

    def mean(self, added: float = 0.0) -> float:
        """Log probability and a number that is added to it, for each token, the end of text included."""
        return (self.log_probability + added) / (len(self.tokens) + self.complete)


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
    model: SpeechModel,
    audio: EncodedAudio,
    prompts: list[list[int]],
    num_beams: int,
    max_new_tokens: int,
    cuda_graphs: bool = False,
) -> list[Search]:
    """The finished search of each clip.

    Args:
        model: the model to decode with.
        audio: the batch's clips, whose embeddings replace the `<|audio|>` positions of `prompts`.
        prompts: (B) token ids, of any lengths.
        num_beams: texts that are kept at each token.
        max_new_tokens: limit for each text, at least 1.
        cuda_graphs: see `open_session`.
    """
    size = max(1, ROWS // num_beams)
    return [
        search
        for first in range(0, len(prompts), size)
        for search in _search_together(
            model,
            audio.select([*range(first, min(first + size, len(prompts)))]),
            prompts[first : first + size],
            num_beams,
            max_new_tokens,
            cuda_graphs,
        )
    ]


def _search_together(
    model: SpeechModel,
    audio: EncodedAudio,
    prompts: list[list[int]],
    num_beams: int,
    max_new_tokens: int,
    cuda_graphs: bool,
) -> list[Search]:
    eos, searches = model.tokenizer.eos_token_id, [Search(num_beams) for _ in prompts]
    session = open_session(model, prompts, max_new_tokens, cuda_graphs)
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
