"""Audio embeddings that are made from text: the language model learns to follow them before it hears speech.

A projector that the token loss trains gives, at some position of each token, a vector near the embedding of that token,
and near that of `<|audio|>` elsewhere. Such a sequence can be made from any sentence, with pauses, and with tokens that
are weak, wrong or missing. To write the sentence, the language model must go through the sequence token by token. It
learns that from a hundred of these batches; from speech, it had not in two thousand.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from finetune.model.granite import EncodedAudio, SpeechModel
from finetune.training.augment import sample_rng
from nano.audio_attention import Spans
from nano.tasks import Example, Tasks

GROUP = "spelled"
LONGEST, LONGEST_LIST = 24, 30  # tokens of a text, and of a keyword list
EDGE, PAUSE = 6, 12  # audio embeddings of silence: fewer than this
PAUSES = 0.08  # share of the words with one before them
PACE, LENGTH = (0.4, 1.0), (0.7, 1.4)  # audio embeddings of a character, of a row; its factor, of a token
TWICE = 0.3  # share of the tokens at two places
STRENGTH, WEAK = (0.4, 1.0), 0.3  # share of the token's embedding
LARGEST_LOSS = 0.3  # share of the tokens of a row that are missing, wrong or weak
NOISE, SCALE = (0.0, 0.8), (0.7, 2.0)  # of a row: noise beside the standard deviation; factor


@dataclass(frozen=True)
class Spelled:
    """A batch of made audio: what is written, the audio, and the places of the tokens."""

    examples: list[Example]
    audio: EncodedAudio
    spans: list[Spans]


class SpelledRows:
    """Makes batches; the same number and key give the same rows.

    Args:
        model: its token embeddings are constants.
        tasks: make the examples.
    """

    def __init__(self, model: SpeechModel, tasks: Tasks) -> None:
        self.model, self.tasks = model, tasks
        self.languages = [name for name, texts in tasks.texts.items() if texts]

    def batch(self, count: int, key: str) -> Spelled:
        """`count` sentences, less those that are too long."""
        rng = sample_rng(0, 0, key)
        examples = [example for _ in range(count) if _is_short(example := self._example(rng))]
        known = self.model.language_model.get_input_embeddings().weight.detach()
        made = [self._row(known, example.target[:-1], rng) for example in examples]
        embeds = torch.nn.utils.rnn.pad_sequence([row for row, _ in made], True)
        counts = torch.tensor([len(row) for row, _ in made])
        return Spelled(examples, EncodedAudio(embeds[:0], counts, embeds, counts), [spans for _, spans in made])

    def _example(self, rng: np.random.Generator) -> Example:
        language = self.languages[rng.integers(len(self.languages))]
        texts = self.tasks.texts[language]
        row, epoch = int(rng.integers(len(texts))), int(rng.integers(1000))
        return replace(self.tasks.example(language, texts[row], "", f"{GROUP} {language} {row}", epoch), group=GROUP)

    def _row(self, known: Tensor, target: Sequence[int], rng: np.random.Generator) -> tuple[Tensor, Spans]:
        """Audio embeddings (A, H) of a text, and its spans."""
        blank, pace, broken = self.model.audio_token_id, rng.uniform(*PACE), rng.uniform(0, LARGEST_LOSS)
        tokens, shares, spans = [blank] * int(rng.integers(EDGE)), dict[int, float](), Spans()
        for number, token in enumerate(target):
            text = self.model.tokenizer.decode([token])
            if text.startswith(" ") and rng.random() < PAUSES:
                tokens += [blank] * int(rng.integers(1, PAUSE))
            length = max(1, round(pace * len(text) * rng.uniform(*LENGTH)))
            start, place = len(tokens), len(tokens) + int(rng.integers(length))
            tokens += [blank] * length
            spans.append((number, start, len(tokens) - 1))
            kind = int(rng.integers(3)) if rng.random() < broken else None  # missing, wrong or weak
            last = min(place + int(rng.random() < TWICE), len(tokens) - 1)
            for position in range(place, last + 1) if kind != 0 else ():
                tokens[position] = int(rng.integers(len(known))) if kind == 1 else token
                shares[position] = WEAK if kind == 2 else rng.uniform(*STRENGTH)
        tokens += [blank] * max(int(rng.integers(EDGE)), not tokens)
        share = torch.tensor([shares.get(place, rng.uniform(*STRENGTH)) for place in range(len(tokens))])[:, None]
        others = torch.from_numpy(rng.integers(0, len(known), len(tokens)))
        row = share * known[torch.tensor(tokens)] + (1 - share) * (known[others] + known[blank]) / 2
        noise = torch.from_numpy(rng.standard_normal(row.shape, dtype=np.float32))
        row = row + noise * row.std() * float(rng.uniform(*NOISE))
        return (row * float(rng.uniform(*SCALE))).float(), spans


def _is_short(example: Example) -> bool:
    return len(example.target) < LONGEST and example.list_tokens < LONGEST_LIST
