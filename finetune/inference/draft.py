"""A draft for speculative decoding: a guess at the coming tokens, taken up again after each fault."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from transformers import PreTrainedTokenizerBase as Tokenizer

from finetune.inference.draft_sources import look_up
from finetune.model.prompt import encode_text

ALONG = (3.6, 4.0)  # while it agrees, a draft starts as if 3.6 of 4 tokens had been accepted: a beta prior
AFRESH = (1.4, 4.0)  # and the first token after a fault
STEM = 2  # characters left of a broken word that are worth a guess; a single one is passed over
WORD = 3  # characters of a word that must be written before the rest of an expected one is offered
LOOK_UP = 0.5  # taken for the chance of a token that was looked up


@cache
def piece(tokenizer: Tokenizer, token: int) -> str:
    """The text of one token."""
    return str(tokenizer.decode([token]))


@dataclass
class Trust:
    """How many draft tokens were accepted of those that were decided, in one kind of place."""

    accepted: float
    decided: float

    def share(self, more: int = 0) -> float:
        """What to expect of the next one, were so many more accepted before it."""
        return (self.accepted + more) / (self.decided + more)

    def learn(self, accepted: int, decided: int) -> None:
        self.accepted += accepted
        self.decided += decided


class Draft:
    """A guessed text, what the language model has written, and how the one lies along the other.

    After a fault the written characters are aligned with the draft by their edit distance, and the draft goes on
    behind them: with the rest of a word that is half written, else with the next word. So a word that is wrong, too
    many, too few, split or joined costs the passes in which the model writes it, and not the rest of the draft. How
    likely a token is right, the draft learns from what became of those before it; a first one after a fault is right
    far less often than the others.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        tokens: Sequence[int] = (),
        probs: Sequence[float] = (),
        phrases: Sequence[Sequence[int]] | None = None,
    ) -> None:
        """Without tokens and phrases there is never anything to offer: plain decoding.

        Args:
            tokens: the guess.
            probs: of each token, that it is right where those before it are.
            phrases: tokens of expected words for `look_up`, which helps out where the guess ends or was refused; an
                empty list looks in the written text alone, None nowhere.
        """
        self.tokenizer, self.tokens, self.phrases = tokenizer, list(tokens), phrases
        self.gave_up = False  # so much was refused that nothing was offered for a while
        self._probs = list(probs)
        self._along, self._afresh = Trust(*ALONG), Trust(*AFRESH)
        self._offered = 0
        self._text = "".join(piece(tokenizer, token) for token in tokens)
        self._folded = np.array([char.lower()[:1] for char in self._text], dtype="U1")
        self._ends = np.cumsum([len(piece(tokenizer, token)) for token in tokens], dtype=np.int64)
        self._places = np.arange(len(self._text) + 1)  # between the characters
        self._stops = np.array([char == " " for char in self._text + " "])
        self._costs = self._places  # edits from the text before each place to what was written since all agreed
        self._rest = self._from(0)
        self._written: list[int] = []
        self._word = 0  # where in it the current word begins
        self._refused: list[int] = []  # its last tokens, since it left the draft; not aligned yet
        self._resumed = False  # what was offered last stood behind such a fault

    def _from(self, index: int) -> list[tuple[int, float, int]]:
        """The draft's tokens from `index` on: token, chance, and place behind it."""
        return list(zip(self.tokens[index:], self._probs[index:], self._ends[index:].tolist(), strict=True))

    def propose(self, room: int, min_prob: float) -> list[int]:
        """Tokens for the next pass: at most `room`, while the probability that all are right is at least `min_prob`."""
        self._offered = 0
        if not self.tokens and self.phrases is None:
            return []
        if (self._afresh if self._refused else self._along).share() < min_prob:
            self.gave_up = True
            return []
        chance, offered = 1.0, list[int]()
        for number, (token, likely, _) in enumerate(self._guess()[: max(0, room)]):
            first = self._resumed and not number
            chance *= likely * (self._afresh.share() if first else self._along.share(number - self._resumed))
            if chance < min_prob:
                break
            offered.append(token)
        self._offered = len(offered)
        return offered

    def observe(self, accepted: int, fresh: list[int]) -> None:
        """The model accepted so many of the offered tokens; `fresh` are those and the one that it wrote behind."""
        if not self.tokens and self.phrases is None:
            return
        decided = min(accepted + 1, self._offered)
        first = int(self._resumed and decided > 0)
        self._afresh.learn(min(first, accepted), first)
        self._along.learn(accepted - min(first, accepted), decided - first)
        for token in fresh:
            if piece(self.tokenizer, token)[:1].isspace():
                self._word = len(self._written)
            self._written.append(token)
        agreed, most = 0, 0 if self._refused else min(len(fresh), len(self._rest))
        while agreed < most and fresh[agreed] == self._rest[agreed][0]:
            agreed += 1
        if agreed:
            self._costs = abs(self._places - self._rest[agreed - 1][2])
            self._rest = self._rest[agreed:]
        self._refused += fresh[agreed:]

    def _guess(self) -> list[tuple[int, float, int]]:
        """What is likely to come; the draft is aligned with what was written since a fault."""
        refused, self._refused = self._refused, []
        self._resumed = bool(refused)
        if refused and self.tokens:
            expected = piece(self.tokenizer, self._rest[0][0]) if self._rest else ""
            text = "".join(piece(self.tokenizer, token) for token in refused)
            self._follow(text)
            # Where the model wrote a beginning of the token, it is the rest of it that it refused.
            self._rest = [] if text != expected and expected.startswith(text) else self._resume()
        if self.phrases is not None and (refused or not self._rest):
            known = len(self._spelt().strip()) >= WORD
            found = look_up(self._written, self._word if known else len(self._written), self.phrases)
            if found:
                self._resumed = False
                return [(token, LOOK_UP, 0) for token in found]
        return self._rest

    def _spelt(self) -> str:
        """The current word as far as it is written."""
        return "".join(piece(self.tokenizer, token) for token in self._written[self._word :])

    def _follow(self, text: str) -> None:
        """A row of the edit distance (Wagner and Fischer 1974) for each character, over all places at once."""
        for char in text.lower():
            moved = np.minimum(self._costs[1:] + 1, self._costs[:-1] + (self._folded != char))
            row = np.concatenate((self._costs[:1] + 1, moved))
            self._costs = np.minimum.accumulate(row - self._places) + self._places

    def _resume(self) -> list[tuple[int, float, int]]:
        """What follows the place that takes the fewest edits to reach: the rest of its word, and the words behind."""
        place = int((2 * self._costs - self._stops).argmin())  # of equals, where a word ends
        if self._text[:place].endswith(" "):
            place -= 1
        end = self._text.find(" ", place) % (len(self._text) + 1)  # the draft's end where there is none
        index = int(np.searchsorted(self._ends, end, side="right"))
        if place == 0 or end - place < STEM:
            return self._from(index)
        word, chance = self._written[self._word :], self._probs[index - 1]
        rest = encode_text(self.tokenizer, self._spelt() + self._text[place:end])
        # What is written may end where the tokenizer would not: then the rest stands for itself.
        rest = rest[len(word) :] if rest[: len(word)] == word else encode_text(self.tokenizer, self._text[place:end])
        places = place + np.cumsum([len(piece(self.tokenizer, token)) for token in rest], dtype=np.int64)
        return [*((token, chance, at) for token, at in zip(rest, places.tolist(), strict=True)), *self._from(index)]


def text_draft(
    tokenizer: Tokenizer, text: str, probs: Sequence[float], phrases: Sequence[Sequence[int]] | None = None
) -> Draft:
    """Draft of `text` as the model would write it; a token is as likely as the least likely of its characters."""
    made = tokenizer(text, add_special_tokens=False, split_special_tokens=True, return_offsets_mapping=True)
    likely = [min(probs[start:end], default=1.0) for start, end in made["offset_mapping"]]
    return Draft(tokenizer, made["input_ids"], likely, phrases)
