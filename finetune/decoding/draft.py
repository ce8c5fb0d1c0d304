"""Drafts for speculative decoding: a guess at the coming tokens, and where to take it up again."""

from dataclasses import dataclass

from torch import Tensor
from transformers import PreTrainedTokenizerBase as Tokenizer

from finetune.model.ctc import greedy_text
from finetune.model.prompt import encode_text

NARROW = 4
REACH = 24  # draft tokens searched for the word just written


@dataclass
class Draft:
    """Token ids of a guess, which of them begin a word, the next one to offer, and the first not yet agreed upon.

    A pass is offered all that is left of it, but only `NARROW` tokens while one pass after another refuses it at
    once: a poor guess costs little then.
    """

    tokens: list[int]
    begins: list[bool]
    at: int = 0
    settled: int = 0
    refused: int = 0

    def rest(self) -> list[int]:
        """What the next pass is offered."""
        return self.tokens[self.at :][: NARROW if self.refused > 1 else None]

    def settle(self, agreed: int, written: int) -> None:
        """After the LLM agreed with that many offered tokens and then wrote `written`: where the draft goes on.

        If `written` begins a word that stands in the draft since the last agreement, behind that word
        (the draft has words too many or too few); else at the word after the refused one, for as long as
        the LLM still writes its own in place of it. A bad guess is refused by the next pass and costs no pass.
        """
        self.refused = 0 if agreed > 1 else self.refused + 1
        self.at += agreed
        if agreed:
            self.settled = self.at
        places = range(self.settled, min(self.settled + REACH, len(self.tokens)))
        found = next((i for i in places if self.begins[i] and self.tokens[i] == written), None)
        if found is not None:
            self.at = found + 1
            return
        self.at = next((i for i in range(self.settled + 1, len(self.tokens)) if self.begins[i]), len(self.tokens))


def no_draft() -> Draft:
    return Draft([], [])


def draft_from_text(tokenizer: Tokenizer, text: str) -> Draft:
    """Tokens of `text` as the model would write it."""
    tokens = encode_text(tokenizer, text)
    begins = [tokenizer.decode([token])[:1] in ("", " ") for token in tokens]
    return Draft(tokens, begins)


def ctc_draft(tokenizer: Tokenizer, logits: Tensor) -> Draft:
    """Draft from the CTC head's greedy text: logits (T, 348) of one clip's real frames."""
    return draft_from_text(tokenizer, greedy_text(logits))
