#!/usr/bin/env python3
"""Teaches terms without audio by text alone: sentences with 0.3 s of silence in place of speech.

    python scripts/bench_text_only.py                   # the recipe with silent clips, and the language model alone
    python scripts/bench_text_only.py --only mixed --set train.epochs=2

The terms and sentences are those of recipes/vocabulary_from_text.yaml, which teaches them by synthetic speech; no
training clip has these terms. `mixed`: recipes/quickstart.yaml with the silent clips in its training data.
`language_model`: the same data, but only LoRA of the language model and its head train, so what the encoder hears
cannot change. The silence is too short for the CTC loss, which ignores it. The recall is that of real test clips.
"""

import argparse
import json
import tempfile
from pathlib import Path

import numpy as np
import soundfile

from finetune.core.recipe import read_recipe
from finetune.core.run_dir import RunDir
from finetune.metrics.results import read_results
from finetune.pipeline import run_recipe

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "recipes" / "vocabulary_from_text"
RATE, SECONDS = 16_000, 0.3
FROZEN = [*(f"parts.{part}.mode=frozen" for part in ("projector", "encoder", "ctc_head")), "train.ctc_weight=0"]
VARIANTS = {"mixed": list[str](), "language_model": FROZEN}


def silent_clips(folder: Path, sentences: int) -> Path:
    """Writes a manifest with `sentences` sentences for each term, all of the same silent file."""
    terms, templates = ((FOLDER / name).read_text().split("\n") for name in ("terms.txt", "templates.txt"))
    templates = [line for line in templates if "{term}" in line]
    soundfile.write(folder / "silence.wav", np.zeros(round(RATE * SECONDS), np.float32), RATE)
    rows = [
        {"id": f"{term}-{number}", "audio_filepath": "silence.wav", "text": templates[place].replace("{term}", term)}
        for index, term in enumerate(filter(None, terms))
        for number in range(sentences)
        for place in [(index * 7 + number) % len(templates)]
    ]
    (folder / "silent.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder / "silent.jsonl"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=list(VARIANTS))
    parser.add_argument("--sentences", type=int, default=24, help="for each term")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="a setting of both recipes")
    args = parser.parse_args()
    terms = set(filter(None, (FOLDER / "terms.txt").read_text().split("\n")))
    for name in [args.only] if args.only else VARIANTS:
        with tempfile.TemporaryDirectory() as folder:
            data = f"data.train=data/vocabulary/train.jsonl,{silent_clips(Path(folder), args.sentences)}"
            changes = [f"name=text-only-{name}", data, "data.max_chars_per_second=1000", *VARIANTS[name], *args.set]
            recipe = read_recipe(ROOT / "recipes" / "quickstart.yaml", changes)
            run_recipe(recipe, "evaluate")
            results = read_results(RunDir(f"{recipe.runs}/{recipe.name}").scores)
        for system in ("base", "adapted"):
            details, canary = getattr(results.details["test"], system), getattr(results.scores["canary"], system)
            rows = [row for row in details.terms if row.term in terms]
            found, spoken = sum(row.hits for row in rows), sum(row.support for row in rows)
            wer = getattr(results.scores["test"], system).wer
            recall = f"recall of the {len(rows)} terms {found} of {spoken} = {100 * found / spoken:.1f} %"
            print(f"{name:16} {system:8} {recall}, test WER {100 * wer:.1f} %, canary WER {100 * canary.wer:.1f} %")


if __name__ == "__main__":
    main()
