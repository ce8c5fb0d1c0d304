"""The provenance section of a report: models, data, settings, software and machine, and the command that repeats it."""

import shlex
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from finetune.core.config import Recipe
from finetune.core.files import read_json, sha256_file
from finetune.core.options import DECODER_OF
from finetune.core.run_dir import RunDir
from finetune.core.wording import count, length_text
from finetune.metrics.results import EvaluationResults


def command(run: RunDir, recipe: Recipe) -> str:
    """The command that repeats the run under another name."""
    return shlex.join(["finetune", "run", str(run.resolved), "--set", f"name={recipe.name}-again"])


def provenance_rows(
    run: RunDir,
    results: EvaluationResults,
    recipe: Recipe,
    trained: Mapping[str, Any],
    pseudo_labels: Mapping[str, int],
) -> list[tuple[str, str]]:
    """Label and value of each row.

    Args:
        run: the run directory.
        results: results of the evaluation.
        recipe: recipe of the run.
        trained: the record of the train stage.
        pseudo_labels: by split, clips whose texts a model wrote.
    """
    source, settings = results.provenance, results.settings
    return [
        ("Base model", _base_model(run, recipe)),
        ("Adapter", _adapter(trained)),
        *((f"SHA-256 of {path.name}", sha256_file(path)) for path in sorted(run.best.glob("*.safetensors"))),
        *_manifests(run.done("prepare") or {}),
        *((f"Pseudo-labels in {split}", count(number, "clip")) for split, number in pseudo_labels.items()),
        ("Prompt", settings.instruction),
        ("Decoding", _decoding(recipe)),
        ("Normalizer", settings.normalizer),
        ("Bootstrap", f"{settings.replicas:,} replicas"),
        ("Data type of the weights", source.dtype),
        ("Machine", source.device),
        ("Seed", str(settings.seed)),
        ("Toolkit", f"finetune {source.toolkit}" + (f", commit {source.commit}" if source.commit else "")),
        (
            "Libraries",
            ", ".join([f"Python {source.python}", *(f"{name} {item}" for name, item in source.libraries.items())]),
        ),
        ("Evaluated", source.made),
    ]


def _base_model(run: RunDir, recipe: Recipe) -> str:
    origin = run.checkpoint / "origin.json"
    revision = f" at {recipe.model.revision}" if recipe.model.revision else ""
    fingerprint = f", fingerprint {read_json(origin)['base']}" if origin.is_file() else ""
    return f"{recipe.model.base}{revision}{fingerprint}"


def _adapter(trained: Mapping[str, Any]) -> str:
    alpha = trained["best_alpha"]
    interpolation = "" if alpha == 1 else f", interpolated with the base (alpha {alpha:g})"
    return (
        f"epoch {trained['best_epoch']}{interpolation}, {trained['trained_parameters']:,} of "
        f"{trained['total_parameters']:,} parameters trained"
    )


def _manifests(prepared: Mapping[str, Any]) -> list[tuple[str, str]]:
    return [
        (
            f"SHA-256 of {split}.jsonl",
            f"{value} ({count(prepared['kept'][split], 'clip')}, {length_text(prepared['hours'][split])})",
        )
        for split, value in prepared.get("hashes", {}).items()
    ]


def _decoding(recipe: Recipe) -> str:
    return ", ".join(
        f"{key} {len(value) if isinstance(value, tuple) else f'{value:g}' if isinstance(value, float) else value}"
        for key, value in asdict(recipe.decode).items()
        if DECODER_OF.get(key, recipe.decode.decoder) == recipe.decode.decoder
    )
