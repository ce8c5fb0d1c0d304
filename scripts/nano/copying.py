"""Rows of text that teach the language model to copy from keyword lists: made-up words, in another order, twice.

A small model copies only after thousands of steps if it sees only clips. These rows are short, and each word is new, so
nothing but the list can tell what follows.
"""

import random
from collections.abc import Mapping, Sequence

from transformers import PreTrainedTokenizerBase as Tokenizer

from finetune.metrics.keyword_terms import words_of
from finetune.model.prompt import Prompt, encode_text
from nano.clips import JAPANESE
from nano.tasks import Example
from nano.texts.invented import WordMaker

GROUP = "copied"
SHORT, LONG = (2, 8), (20, 100)  # words of a list
ORDER = 2  # letters that decide the next one: words of any look
LONG_SHARE, WRITTEN = 0.1, 5  # share of long lists, and how many of their words the text has


class CopyRows:
    """Makes rows for batches; the same key gives the same rows.

    Args:
        tokenizer: of the model.
        texts: sentences of each language, from which words are made up; Japanese has none.
    """

    def __init__(self, tokenizer: Tokenizer, texts: Mapping[str, Sequence[str]]) -> None:
        self.tokenizer = tokenizer
        self.makers = [
            WordMaker([word for text in found for word in words_of(text)], ORDER)
            for name, found in texts.items()
            if name != JAPANESE
        ]

    def rows(self, count: int, key: str) -> list[tuple[Prompt, Example]]:
        """`count` prompts without audio, and their answers."""
        rng = random.Random(key)
        return [self._row(rng) for _ in range(count)]

    def _row(self, rng: random.Random) -> tuple[Prompt, Example]:
        maker, is_long = rng.choice(self.makers), rng.random() < LONG_SHARE
        words = [maker.word(rng) for _ in range(rng.randint(*(LONG if is_long else SHORT)))]
        written = rng.sample(words, min(len(words), WRITTEN if is_long else len(words)))
        text = " ".join([*written, *([] if is_long else rng.sample(written, len(written)))])
        suffix = self.tokenizer.encode(f" Keywords: {', '.join(words)}\n ASSISTANT:", add_special_tokens=False)
        target = (*encode_text(self.tokenizer, text), self.tokenizer.eos_token_id)
        return Prompt((), tuple(suffix)), Example("", tuple(words), target, GROUP)
