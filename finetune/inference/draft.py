"""A draft for speculative decoding: a predicted text that resumes after each mismatch with the model's tokens."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from transformers import PreTrainedTokenizerBase as Tokenizer

from finetune.inference.draft_sources import prompt_lookup
from finetune.model.prompt import encode_text

MATCH_PRIOR = (3.6, 4.0)  # beta prior of the acceptance rate while the draft matches: 3.6 of 4 tokens accepted
RESUME_PRIOR = (1.4, 4.0)  # the same for the first token after a mismatch
MIN_REMAINDER = 2  # characters: a shorter remainder of an interrupted word is skipped
MIN_PREFIX = 3  # characters of a word that must be written before a phrase can complete it
LOOKUP_PROB = 0.5  # assumed probability of a token from prompt lookup


@cache
def token_text(tokenizer: Tokenizer, token: int) -> str:
    """The text of one token."""
    return str(tokenizer.decode([token]))


@dataclass
class AcceptanceRate:
    """Number of accepted draft tokens, and number of draft tokens that the model accepted or refused."""

    accepted: float
    decided: float

    def expected(self, more_accepted: int = 0) -> float:
        """Expected acceptance probability of the next token if `more_accepted` tokens before it are accepted."""
        return (self.accepted + more_accepted) / (self.decided + more_accepted)

    def update(self, accepted: int, decided: int) -> None:
        """Counts the outcome of one pass."""
        self.accepted += accepted
        self.decided += decided


class Draft:
    """A draft text, the tokens that the language model has written, and the alignment of both.

    After a mismatch the written characters are aligned with the draft by edit distance, and the draft resumes there:
    with the remainder of a partially written word, otherwise with the next word. So a wrong, inserted, missing, split
    or merged word costs only the passes in which the model writes it; the remaining draft is still used.

    The draft estimates acceptance probabilities from the outcomes of earlier tokens. The first token after a mismatch
    has its own estimate, because it is accepted far less often than others.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        tokens: Sequence[int] = (),
        probs: Sequence[float] = (),
        phrases: Sequence[Sequence[int]] | None = None,
    ) -> None:
        """Creates a draft. Without tokens and phrases it proposes nothing, which gives plain greedy decoding.

        Args:
            tokenizer: tokenizer of the language model.
            tokens: token ids of the draft text.
            probs: for each token, the probability that it is right if the tokens before it are right.
            phrases: token ids of expected phrases for `prompt_lookup`, which is used at the end of the draft and after
                a mismatch. With an empty list the lookup searches only the written text; None disables it.
        """
        self.tokenizer, self.tokens, self.phrases = tokenizer, list(tokens), phrases
        self.gave_up = False  # True if so many tokens were refused that a pass had no proposal
        self._probs = list(probs)
        self._match_rate, self._resume_rate = AcceptanceRate(*MATCH_PRIOR), AcceptanceRate(*RESUME_PRIOR)
        self._num_proposed = 0
        self._text = "".join(token_text(tokenizer, token) for token in tokens)
        self._lower = np.array([char.lower()[:1] for char in self._text], dtype="U1")
        self._token_ends = np.cumsum([len(token_text(tokenizer, token)) for token in tokens], dtype=np.int64)
        self._positions = np.arange(len(self._text) + 1)  # between the characters of the draft text
        self._is_word_end = np.array([char == " " for char in self._text + " "])
        # Edits from the draft text before each position to the text written since the last match.
        self._edit_costs = self._positions
        self._remaining = self._tokens_from(0)
        self._written: list[int] = []
        self._word_start = 0  # index in `_written` of the first token of the current word
        self._unaligned: list[int] = []  # tokens written since the mismatch, not yet aligned
        self._after_mismatch = False  # whether the last proposal was the first one after a mismatch

    def _tokens_from(self, index: int) -> list[tuple[int, float, int]]:
        """The draft's tokens from `index` on: token id, probability, and position in the text after the token."""
        return list(zip(self.tokens[index:], self._probs[index:], self._token_ends[index:].tolist(), strict=True))

    def propose(self, max_tokens: int, min_prob: float) -> list[int]:
        """Up to `max_tokens` tokens for the next pass; the probability that all are right is at least `min_prob`."""
        self._num_proposed = 0
        if not self.tokens and self.phrases is None:
            return []
        if (self._resume_rate if self._unaligned else self._match_rate).expected() < min_prob:
            self.gave_up = True
            return []
        prob, proposal = 1.0, list[int]()
        for number, (token, token_prob, _) in enumerate(self._candidates()[: max(0, max_tokens)]):
            resumes = self._after_mismatch and not number
            rate = self._resume_rate.expected() if resumes else self._match_rate.expected(number - self._after_mismatch)
            prob *= token_prob * rate
            if prob < min_prob:
                break
            proposal.append(token)
        self._num_proposed = len(proposal)
        return proposal

    def observe(self, accepted: int, new_tokens: list[int]) -> None:
        """Records the outcome of a pass.

        Args:
            accepted: proposed tokens that the model accepted.
            new_tokens: the accepted tokens, and the token that the model wrote after them.
        """
        if not self.tokens and self.phrases is None:
            return
        decided = min(accepted + 1, self._num_proposed)
        num_resumed = int(self._after_mismatch and decided > 0)
        self._resume_rate.update(min(num_resumed, accepted), num_resumed)
        self._match_rate.update(accepted - min(num_resumed, accepted), decided - num_resumed)
        for token in new_tokens:
            if token_text(self.tokenizer, token)[:1].isspace():
                self._word_start = len(self._written)
            self._written.append(token)
        matched, limit = 0, 0 if self._unaligned else min(len(new_tokens), len(self._remaining))
        while matched < limit and new_tokens[matched] == self._remaining[matched][0]:
            matched += 1
        if matched:
            self._edit_costs = abs(self._positions - self._remaining[matched - 1][2])
            self._remaining = self._remaining[matched:]
        self._unaligned += new_tokens[matched:]

    def _candidates(self) -> list[tuple[int, float, int]]:
        """The tokens expected next. Aligns the draft with the tokens written since a mismatch."""
        refused, self._unaligned = self._unaligned, []
        self._after_mismatch = bool(refused)
        if refused and self.tokens:
            expected = token_text(self.tokenizer, self._remaining[0][0]) if self._remaining else ""
            text = "".join(token_text(self.tokenizer, token) for token in refused)
            self._update_edit_costs(text)
            # If the model wrote only the beginning of the expected token, it refused the remainder of that token.
            self._remaining = [] if text != expected and expected.startswith(text) else self._resume_after_mismatch()
        if self.phrases is not None and (refused or not self._remaining):
            has_prefix = len(self._current_word().strip()) >= MIN_PREFIX
            word_start = self._word_start if has_prefix else len(self._written)
            continuation = prompt_lookup(self._written, word_start, self.phrases)
            if continuation:
                self._after_mismatch = False
                return [(token, LOOKUP_PROB, 0) for token in continuation]
        return self._remaining

    def _current_word(self) -> str:
        """The text of the current word so far."""
        return "".join(token_text(self.tokenizer, token) for token in self._written[self._word_start :])

    def _update_edit_costs(self, text: str) -> None:
        """Computes a row of the edit distance matrix (Wagner and Fischer 1974) for each character of `text`."""
        for char in text.lower():
            moved = np.minimum(self._edit_costs[1:] + 1, self._edit_costs[:-1] + (self._lower != char))
            row = np.concatenate((self._edit_costs[:1] + 1, moved))
            self._edit_costs = np.minimum.accumulate(row - self._positions) + self._positions

    def _resume_after_mismatch(self) -> list[tuple[int, float, int]]:
        """The draft after the position with the fewest edits: the remainder of the word there, then the next words."""
        position = int((2 * self._edit_costs - self._is_word_end).argmin())  # with equal costs, a word end is preferred
        if self._text[:position].endswith(" "):
            position -= 1
        end = self._text.find(" ", position) % (len(self._text) + 1)  # the end of the draft if there is no space
        index = int(np.searchsorted(self._token_ends, end, side="right"))
        if position == 0 or end - position < MIN_REMAINDER:
            return self._tokens_from(index)
        word, prob = self._written[self._word_start :], self._probs[index - 1]
        remainder = encode_text(self.tokenizer, self._current_word() + self._text[position:end])
        # The tokens of the complete word can differ from those already written; then only the remainder is encoded.
        remainder = (
            remainder[len(word) :]
            if remainder[: len(word)] == word
            else encode_text(self.tokenizer, self._text[position:end])
        )
        ends = position + np.cumsum([len(token_text(self.tokenizer, token)) for token in remainder], dtype=np.int64)
        return [
            *((token, prob, at) for token, at in zip(remainder, ends.tolist(), strict=True)),
            *self._tokens_from(index),
        ]


def text_draft(
    tokenizer: Tokenizer, text: str, probs: Sequence[float], phrases: Sequence[Sequence[int]] | None = None
) -> Draft:
    """A draft of `text`, tokenized as a transcript.

    Args:
        tokenizer: tokenizer of the language model.
        text: the predicted text.
        probs: probability of each character; a token gets the smallest one of its characters.
        phrases: as in `Draft`.
    """
    encoding = tokenizer(text, add_special_tokens=False, split_special_tokens=True, return_offsets_mapping=True)
    token_probs = [min(probs[start:end], default=1.0) for start, end in encoding["offset_mapping"]]
    return Draft(tokenizer, encoding["input_ids"], token_probs, phrases)
