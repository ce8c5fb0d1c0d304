"""Stages 2 and 3 of the build: the language model trains on sentences of all languages, as text, then spelled."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nano.clips import TRAIN
from nano.decoder import Decoder
from nano.plan import Plan
from nano.rounds import make_batches
from nano.stage import Losses
from nano.tasks import Example

Texts = dict[str, list[str]]
BESIDE = 0.25  # weight of the rows that are copied, or spelled, beside others
SPELLED_BATCHES = 100  # of a round


def read_texts(folder: Path, languages: Sequence[str]) -> Texts:
    """The distinct sentences of each language for training, in the order of the files.

    Raises:
        SystemExit: there is no file.
    """
    texts = Texts()
    for language in languages:
        path = folder / f"{language}.jsonl"
        if path.exists():
            rows = map(json.loads, path.read_text(encoding="utf-8").splitlines())
            found = dict.fromkeys(row["text"] for row in rows if row["split"] == TRAIN)
            texts[language] = list(found)
    if not texts:
        raise SystemExit(f"{folder}: no LANG.jsonl with sentences")
    return texts


def read_phrase_book(folder: Path) -> dict[str, dict[str, str]]:
    """For each id, the sentence in each language."""
    path = folder / "phrase_book.jsonl"
    rows = map(json.loads, path.read_text(encoding="utf-8").splitlines() if path.exists() else ())
    return {str(row.pop("phrase")): row for row in rows}


@dataclass(frozen=True)
class TextBatch:
    """Sentences, and the key of the random numbers of the rows that are copied."""

    examples: list[Example]
    key: str


class SentenceRounds:
    """Rounds of the text stage: as many sentences of each language, and rows that are copied."""

    def __init__(self, decoder: Decoder, plan: Plan, seed: int) -> None:
        self.decoder, self.tasks, self.plan, self.seed = decoder, decoder.tasks, plan, seed
        self.languages = [name for name, texts in self.tasks.texts.items() if texts]

    def state(self) -> dict[str, Any]:
        return {}

    def batches(self, number: int, state: dict[str, Any]) -> list[TextBatch]:
        rng, examples = np.random.default_rng((self.seed, number)), list[Example]()
        for language in self.languages:
            texts, count = self.tasks.texts[language], max(1, self.plan.round_items // len(self.languages))
            for row in rng.choice(len(texts), count, replace=count > len(texts)).tolist():
                examples.append(self.tasks.example(language, texts[row], "", f"text {language} {row}", number))
        sizes = [(20.0 + len(example.target) + example.list_tokens,) for example in examples]
        batches = make_batches(sizes, self.plan.text_limits, rng)
        return [
            TextBatch([examples[row] for row in batch], f"{self.seed} {number} {place}")
            for place, batch in enumerate(batches)
        ]

    def losses(self, batch: TextBatch) -> Losses:
        losses = Losses()
        copies = self.decoder.add_copies(losses, self.plan.text_copies, batch.key)
        losses.total = self.decoder.add_losses(losses, batch.examples) + copies
        return losses


class SpelledRounds:
    """Rounds of the stage that teaches the language model to follow audio that is made from text."""

    def __init__(self, decoder: Decoder, plan: Plan, seed: int) -> None:
        self.decoder, self.plan, self.seed = decoder, plan, seed

    def state(self) -> dict[str, Any]:
        return {}

    def batches(self, number: int, state: dict[str, Any]) -> list[str]:
        return [f"{self.seed} {number} {place}" for place in range(SPELLED_BATCHES)]

    def losses(self, batch: str) -> Losses:
        losses, plan = Losses(), self.plan
        spelled = self.decoder.add_spelled(losses, plan.text_spelled, batch)
        losses.total = spelled + BESIDE * self.decoder.add_copies(losses, plan.copies, batch)
        return losses
