"""A run directory as after training, whose models hear what they are told: evaluation and report without a model."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np

from finetune.core.config import Recipe
from finetune.core.files import sha256_file, write_json
from finetune.core.options import DecodingOptions
from finetune.core.run_dir import RunDir
from finetune.data.leaks import find_leaks
from finetune.data.manifest import Utterance, write_manifest
from finetune.evaluation import decode, evaluate, utterances
from finetune.inference.recognize import Hypothesis


class Recognizer:
    """`which` is base until an adapter is loaded."""

    which = "base"


def synthetic_run(
    root: Path,
    splits: Mapping[str, Sequence[Utterance]],
    heard: Mapping[str, Mapping[str, str]],
    sections: Mapping[str, Any],
    audio: bool = False,
) -> RunDir:
    """Runs the real `evaluate` on hypotheses from elsewhere and leaves what the stages before it would have left.

    Args:
        root: the run directory; its name is the run's.
        splits: train, test and perhaps canary.
        heard: by system (base, adapted), the hypothesis of each utterance id; a clip without one gives "".
        sections: of the recipe, beside its data.
        audio: measure the clips' audio; without it, as of a second of noise.
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
    run.finish(
        "prepare",
        {
            "kept": {split: len(items) for split, items in splits.items()},
            "hours": {split: sum(item.duration for item in items) / 3600 for split, items in splits.items()},
            "hashes": {split: sha256_file(run.manifest(split)) for split in splits},
        },
    )
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

    def listen(
        model: Recognizer, items: Sequence[Utterance], instruction: str, options: DecodingOptions
    ) -> list[Hypothesis]:
        return [
            Hypothesis(
                item.id,
                heard[model.which].get(item.id, ""),
                (1, 2),
                -1.0,
                item.duration / (40 if (options.decoder != "greedy") else 30),
                2 if (options.decoder != "greedy") else 9,
                9,
                6,
                False,
            )
            for item in items
        ]

    def drafts(model: Recognizer, items: Sequence[Utterance]) -> list[str]:
        return [heard["adapted"].get(item.id, "") for item in items]

    noise = np.random.default_rng(0).normal(0, 0.1, 16_000).astype(np.float32)
    with (
        patch.object(evaluate, "load_model", lambda *_: Recognizer()),
        patch.object(evaluate, "load_adapter", lambda model, _: setattr(model, "which", "adapted")),
        patch.object(evaluate, "ctc_texts", drafts),
        patch.object(decode, "recognize", listen),
        patch.object(utterances, "load_audio", utterances.load_audio if audio else lambda *_: noise),
    ):
        result = evaluate.evaluate(recipe, run)
    run.finish("evaluate", {"seconds": result.seconds})
    return run
