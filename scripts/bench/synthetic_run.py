"""Creates an evaluated run directory from given hypotheses, without a model: for benchmarks and tests of reports."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from finetune.core.config import Recipe
from finetune.core.files import sha256_file, write_json
from finetune.core.options import DecodingOptions
from finetune.core.run_dir import RunDir
from finetune.data.leaks import find_leaks
from finetune.data.manifest import Utterance, write_manifest
from finetune.data.style import split_style, write_style
from finetune.data.text_rules import TextRules
from finetune.evaluation.decode_run import Backend
from finetune.evaluation.evaluate import evaluate
from finetune.inference.recognize import Hypothesis


@dataclass(frozen=True)
class FixedModel:
    """Stands for the base or the adapted model."""

    system: str


def synthetic_run(
    root: Path,
    splits: Mapping[str, Sequence[Utterance]],
    hypotheses: Mapping[str, Mapping[str, str]],
    sections: Mapping[str, Any],
) -> RunDir:
    """Writes the files of prepare and train, and runs `evaluate` on the given hypotheses.

    The audio of every clip is one second of noise.

    Args:
        root: the run directory; its name is the name of the run.
        splits: train, test and optionally canary.
        hypotheses: by system (base, adapted), the hypothesis of each utterance id; "" for a missing id.
        sections: of the recipe; `data` is extended by the manifests.
    """
    run = RunDir(root)
    for split, items in splits.items():
        write_manifest(run.manifest(split), items)
    data = {split: [str(run.manifest(split))] for split in splits} | {"valid": [str(run.manifest("train"))]}
    recipe = Recipe.model_validate(
        {
            "name": root.name,
            "runs": str(root.parent),
            "model": {"base": "base"},
            **sections,
            "data": data | sections.get("data", {}),
        }
    )
    _write_prepared(run, recipe, splits)
    _write_trained(run)
    noise = np.random.default_rng(0).normal(0, 0.1, 16_000).astype(np.float32)
    result = evaluate(recipe, run, _backend(hypotheses), lambda *_: noise)
    run.finish("evaluate", {"seconds": result.seconds})
    return run


def _write_prepared(run: RunDir, recipe: Recipe, splits: Mapping[str, Sequence[Utterance]]) -> None:
    """Writes the files of `prepare`, except the manifests."""
    write_json(run.resolved, recipe.model_dump(mode="json", exclude_none=True))
    write_json(
        run.problems,
        {
            "test": {
                "dropped": [],
                "warnings": [vars(problem) for problem in find_leaks(splits["train"], splits["test"])],
            }
        },
    )
    rules = TextRules(recipe.data.text)
    write_style(run.style, {split: split_style(map(rules, items), rules) for split, items in splits.items()})
    run.finish(
        "prepare",
        {
            "kept": {split: len(items) for split, items in splits.items()},
            "hours": {split: sum(item.duration for item in items) / 3600 for split, items in splits.items()},
            "hashes": {split: sha256_file(run.manifest(split)) for split in splits},
        },
    )


def _write_trained(run: RunDir) -> None:
    """Writes the result and the metrics of `train`."""
    run.finish(
        "train",
        {
            "best_epoch": 2,
            "best_alpha": 1.0,
            "base_valid_wer": 0.5,
            "base_canary_wer": 0.1,
            "trained_parameters": 10,
            "total_parameters": 100,
        },
    )
    run.metrics.write_text(
        "".join(f'{{"kind": "step", "step": {step}, "loss": {4 / step}}}\n' for step in range(1, 41))
        + "".join(
            f'{{"kind": "valid", "step": {step}, "epoch": {epoch}, "alpha": 1.0, "wer": {0.5 / epoch}, '
            '"canary_wer": 0.1}\n'
            for epoch, step in ((1, 20), (2, 40))
        ),
        encoding="utf-8",
    )


def _backend(hypotheses: Mapping[str, Mapping[str, str]]) -> Backend:
    """Models that write the given hypotheses."""

    def recognize(model: Any, items: list[Utterance], instruction: str, options: DecodingOptions) -> list[Hypothesis]:
        greedy = options.decoder == "greedy"
        return [
            Hypothesis(
                item.id,
                hypotheses[model.system].get(item.id, ""),
                (1, 2),
                -1.0,
                item.duration / (30 if greedy else 40),
                9 if greedy else 2,
                9,
                6,
                False,
            )
            for item in items
        ]

    def ctc_texts(model: Any, items: list[Utterance]) -> list[str]:
        return [hypotheses["adapted"].get(item.id, "") for item in items]

    def load(recipe: Recipe, run: RunDir, system: str) -> Any:
        return FixedModel(system)

    return Backend(load, recognize, ctc_texts, lambda _, words: words)
