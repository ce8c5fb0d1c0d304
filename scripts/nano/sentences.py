"""Stage 2 of the build: the language model trains on sentences of all languages as text."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from finetune.model.granite import SpeechModel
from nano.clips import is_dev
from nano.decoder import add_text_losses
from nano.plan import Plan
from nano.rounds import make_batches
from nano.stage import Losses
from nano.tasks import Example, Tasks

Texts = dict[str, list[str]]


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
            found = dict.fromkeys(row["text"] for row in rows if not is_dev(row["text"], row.get("phrase") or ""))
            texts[language] = list(found)
    if not texts:
        raise SystemExit(f"{folder}: no LANG.jsonl with sentences")
    return texts


def read_phrase_book(folder: Path) -> dict[str, dict[str, str]]:
    """For each id, the sentence in each language."""
    path = folder / "phrase_book.jsonl"
    rows = map(json.loads, path.read_text(encoding="utf-8").splitlines() if path.exists() else ())
    return {str(row.pop("phrase")): row for row in rows}


class SentenceRounds:
    """Rounds of the text stage: as many sentences of each language."""

    def __init__(self, model: SpeechModel, tasks: Tasks, plan: Plan, seed: int = 2) -> None:
        self.model, self.tasks, self.plan, self.seed = model, tasks, plan, seed
        self.languages = [name for name, texts in tasks.texts.items() if texts]

    def state(self) -> dict[str, Any]:
        return {}

    def batches(self, number: int, state: dict[str, Any]) -> list[list[Example]]:
        rng, examples = np.random.default_rng((self.seed, number)), list[Example]()
        for language in self.languages:
            texts, count = self.tasks.texts[language], max(1, self.plan.round_items // len(self.languages))
            for row in rng.choice(len(texts), count, replace=count > len(texts)).tolist():
                examples.append(self.tasks.example(language, texts[row], "", f"text {language} {row}", number))
        sizes = [(20.0 + len(example.target) + example.list_tokens,) for example in examples]
        return [[examples[row] for row in batch] for batch in make_batches(sizes, self.plan.text_limits, rng)]

    def losses(self, batch: list[Example]) -> Losses:
        losses = Losses()
        losses.total = add_text_losses(losses, self.model, self.tasks, batch)
        return losses
