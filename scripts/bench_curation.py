#!/usr/bin/env python3
"""Measures `finetune pseudo-label` and `finetune suggest` on a recipe, with a part of its transcripts hidden.

    scripts/fetch_ivr
    python scripts/bench_curation.py recipes/ivr_telephone.yaml --only pseudo-label --set train.epochs=6
    python scripts/bench_curation.py recipes/quickstart.yaml --only suggest --share 25 --set train.epochs=2

pseudo-label: a teacher is trained on a part of `data.train` (--share per cent of its audio) and transcribes the rest,
whose transcripts are hidden. A student is trained on both, and another model on all true transcripts. The gap is the
WER of the teacher minus that of all transcripts. `--curve` takes both from a finished `finetune curve RECIPE`.

suggest: a model is trained on a part and ranks the rest. The WER of its hypotheses and the number of new words are
printed for the best quarter, and for random clips with as much audio. Then as much audio as the first part has is
chosen from the rest, by the ranking and at random, and a model is trained on the first part with each of them.

All trainings have about the same number of steps and the same mixture with replay. --seeds N repeats everything with
other parts and other seeds. Rerun to resume.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from finetune.core.config import Recipe  # noqa: E402
from finetune.core.curation_options import CurveOptions, PseudoLabelOptions, SuggestOptions  # noqa: E402
from finetune.core.files import write_json  # noqa: E402
from finetune.core.recipe import load_recipe  # noqa: E402
from finetune.core.run_dir import RunDir  # noqa: E402
from finetune.curation.adapted_model import find_model  # noqa: E402
from finetune.curation.outputs import CurationFiles  # noqa: E402
from finetune.curation.pseudo_label import pseudo_label  # noqa: E402
from finetune.curation.suggest import Budget, suggest  # noqa: E402
from finetune.data.manifest import Utterance, read_manifest, seconds_of, write_manifest  # noqa: E402
from finetune.data.utterance_table import open_manifest  # noqa: E402
from finetune.evaluation.curve import ScoredSet  # noqa: E402
from finetune.evaluation.decode_run import Backend  # noqa: E402
from finetune.learning_curve import CurveFiles, part_name, part_recipe  # noqa: E402
from finetune.metrics.resampling import resample  # noqa: E402
from finetune.metrics.significance import paired_difference  # noqa: E402
from finetune.metrics.wer import errors_per_utterance, score  # noqa: E402
from finetune.pipeline import run_recipe  # noqa: E402
from finetune.training.subsets import nested_parts  # noqa: E402


class Bench:
    """One repetition: the known and the hidden clips of a seed, and trainings on them."""

    def __init__(
        self, recipe: Recipe, share: float, repeat: int, scored: ScoredSet, run: RunDir, curve: bool = False
    ) -> None:
        self.recipe, self.repeat, self.scored, self.run, self.curve = recipe, repeat, scored, run, curve
        self.share = share
        self.folder = run.root / "curation" / f"{share:g}-{repeat + 1}"
        table = open_manifest(run.manifest("train"))
        rows = {*nested_parts(table, [share / 100], "clips", recipe.seed + repeat)[0].tolist()}
        clips = list(table)
        self.known = [clip for row, clip in enumerate(clips) if row in rows]
        self.hidden = [clip for row, clip in enumerate(clips) if row not in rows]
        self.seconds = seconds_of(clips)
        write_manifest(self.folder / "hidden.jsonl", [replace(clip, text="") for clip in self.hidden])

    def part_of_curve(self, share: float) -> RunDir:
        """A finished part of `finetune curve` with this seed."""
        files, name = CurveFiles(self.run), part_name(share, self.repeat)
        run = self.run if name == "100" else RunDir(files.folder / name)
        ids = {clip.id for clip in (self.known if share < 100 else [*self.known, *self.hidden])}
        trained = files.manifest(name)
        if not run.done("train") or {clip.id for clip in read_manifest(trained)} != ids:
            raise SystemExit(f"{run.root}: not a finished part of {share:g} % by clips; run `finetune curve` first")
        return run

    def train(self, name: str, clips: Sequence[Utterance]) -> RunDir:
        """Trains on clips, with the number of steps that the recipe has for all of them."""
        path = self.folder / f"{name}.train.jsonl"
        write_manifest(path, clips)
        share = 100 * seconds_of(clips) / self.seconds
        recipe = part_recipe(self.recipe, self.run, path, name, share, self.repeat, CurveOptions())
        recipe = recipe.model_copy(update={"runs": str(self.folder)})
        print(
            f"{name}: {len(clips)} clips, {seconds_of(clips) / 60:.1f} minutes, {recipe.train.epochs} epochs",
            flush=True,
        )
        return run_recipe(recipe, "train")

    def errors(self, name: str, run: RunDir) -> NDArray[np.int64]:
        recipe, _ = load_recipe(run.resolved)
        return self.scored.errors(self.scored.texts(recipe, run, "adapted", self.folder / f"{name}.texts.json"))

    def pseudo_labels(self, options: PseudoLabelOptions) -> dict[str, NDArray[np.int64]]:
        teacher = self.part_of_curve(self.share) if self.curve else self.train("teacher", self.known)
        tag = f"-{options.min_agreement:g}-{options.min_confidence:g}"
        files = CurationFiles.of(self.folder / f"pseudo{tag}.jsonl")
        if not files.summary.is_file() or json.loads(files.summary.read_text())["options"] != asdict(options):
            pseudo_label(find_model(str(teacher.root)), str(self.folder / "hidden.jsonl"), options, files)
        labelled = read_manifest(files.manifest)
        self._print_labels(labelled, files)
        runs = {
            "teacher": teacher,
            "student": self.train(f"student{tag}", [*self.known, *labelled]),
            "all transcripts": self.part_of_curve(100)
            if self.curve
            else self.train("all", [*self.known, *self.hidden]),
        }
        return {name: self.errors(run.root.name, run) for name, run in runs.items()}

    def _print_labels(self, labelled: list[Utterance], files: CurationFiles) -> None:
        truth = {f"pseudo-{clip.id}": clip.text for clip in self.hidden}
        aside = [json.loads(line) for line in files.set_aside.read_text().splitlines()]
        pairs = [(truth[clip.id], clip.text) for clip in labelled if clip.id in truth]
        rows = [(f"pseudo-{row['id']}", row["pred_text"]) for row in aside]
        others = [(truth[name], text) for name, text in rows if name in truth]
        for name, rows in (("kept", pairs), ("set aside", others)):
            if rows:
                references, texts, preset = [a for a, _ in rows], [b for _, b in rows], self.scored.preset
                wer = score(references, texts, preset).wer
                right = sum(not count for count, _ in errors_per_utterance(references, texts, preset))
                print(f"  {name}: {len(rows)} clips, WER of their texts {100 * wer:.1f} %, {right} without an error")

    def suggestions(self) -> dict[str, NDArray[np.int64]]:
        first = self.train("first", self.known)
        budget, files = seconds_of(self.known), CurationFiles.of(self.folder / "next.jsonl")
        if not files.summary.is_file():
            source = str(self.folder / "hidden.jsonl")
            suggest(find_model(str(first.root)), source, [], Budget(), SuggestOptions(), files)
        ranked = read_manifest(files.manifest)
        truth = {clip.id: clip.text for clip in self.hidden}
        print_ranking([clip for clip in ranked if clip.id in truth], truth, self.known, self.scored.preset)
        ids = {clip.id for clip in within(ranked, budget)}
        order = np.random.default_rng(self.recipe.seed + self.repeat).permutation(len(self.hidden))
        chosen = within([self.hidden[number] for number in order], budget)
        runs = {
            "first part": first,
            "random": self.train("random", [*self.known, *chosen]),
            "suggested": self.train("suggested", [*self.known, *(clip for clip in self.hidden if clip.id in ids)]),
        }
        return {name: self.errors(run.root.name, run) for name, run in runs.items()}


def within(clips: Sequence[Utterance], seconds: float) -> list[Utterance]:
    """The clips in their order that fit into some seconds; near copies of better clips are left out."""
    chosen = list[Utterance]()
    for clip in clips:
        if "near_copy_of" not in clip.extra and clip.duration <= seconds:
            chosen.append(clip)
            seconds -= clip.duration
    return chosen


def print_ranking(ranked: Sequence[Utterance], truth: dict[str, str], known: Sequence[Utterance], preset: str) -> None:
    """Prints the WER of the hypotheses and the new words of the best quarter, and those of random clips."""
    words = {word for clip in known for word in clip.text.split()}

    def measures(clips: Sequence[Utterance]) -> tuple[float, int]:
        wer = score([truth[clip.id] for clip in clips], [str(clip.extra["pred_text"]) for clip in clips], preset).wer
        return wer, len({word for clip in clips for word in truth[clip.id].split()} - words)

    best, rng = ranked[: len(ranked) // 4], np.random.default_rng(1)
    drawn = [
        measures(within([replace(ranked[i], extra={"pred_text": ranked[i].extra["pred_text"]}) for i in order], length))
        for order in (rng.permutation(len(ranked)) for _ in range(1000))
        for length in (seconds_of(best),)
    ]
    wer, new = measures(best)
    low, high = np.quantile(drawn, [0.025, 0.975], axis=0)
    mean = np.mean(drawn, axis=0)
    print(f"best quarter: {len(best)} of {len(ranked)} clips, WER {100 * wer:.1f} %, {new} new words")
    print(
        f"random, as much audio: WER {100 * mean[0]:.1f} % ({100 * low[0]:.1f} to {100 * high[0]:.1f}), {mean[1]:.1f} "
        f"new words ({low[1]:.0f} to {high[1]:.0f})"
    )


def report(results: list[dict[str, NDArray[np.int64]]], scored: ScoredSet) -> None:
    """Prints WER, paired differences and the share of the gap, with intervals over the utterances."""
    names = [*results[0]]
    runs = {name: np.stack([row[name] for row in results]) for name in names}
    for name in names:
        wer, low, high = scored.rate(runs[name])
        single = ", ".join(f"{100 * counts.sum() / sum(scored.words):.1f}" for counts in runs[name])
        print(f"{name:16} WER {100 * wer:.1f} % ({100 * low:.1f} to {100 * high:.1f}); runs: {single}")
    words, blocks = [len(results) * count for count in scored.words], scored.blocks.names
    replicas, seed = scored.recipe.evaluate.replicas, scored.recipe.seed
    first, second, third = (runs[name].sum(0) for name in names)
    pairs = [(names[1], second, names[0], first), (names[2], third, names[1], second)]
    for name, errors, other, before in pairs:
        pair = paired_difference(before.tolist(), errors.tolist(), words, blocks, replicas, seed)
        print(
            f"{name} - {other}: {100 * pair.difference:+.1f} points ({100 * pair.low:+.1f} to {100 * pair.high:+.1f}), "
            f"p {pair.p_value:.3f}"
        )
    if names[1] == "student":
        names_of = {name: number for number, name in enumerate(dict.fromkeys(blocks))}
        sums = np.zeros((3, len(names_of)))
        columns = np.stack([first, second, third]).astype(float)
        np.add.at(sums, (slice(None), [names_of[name] for name in blocks]), columns)
        a, b, c = resample(sums, replicas, seed)
        low, high = np.quantile((a - b) / np.maximum(1.0, a - c), [0.025, 0.975])
        closed = (first - second).sum() / max(1, (first - third).sum())
        print(f"closed of the gap: {100 * closed:.0f} % ({100 * low:.0f} to {100 * high:.0f})")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe")
    parser.add_argument("--set", action="append", default=[], dest="overrides", metavar="KEY=VALUE")
    parser.add_argument("--only", choices=("pseudo-label", "suggest"), required=True)
    parser.add_argument("--share", type=float, default=50, help="per cent of the training audio with transcripts")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--curve", action="store_true", help="teacher and all transcripts are parts of a curve")
    parser.add_argument("--min-agreement", type=float, default=PseudoLabelOptions().min_agreement)
    parser.add_argument("--min-confidence", type=float, default=PseudoLabelOptions().min_confidence)
    args = parser.parse_args()
    recipe, _ = load_recipe(args.recipe, [*args.overrides])
    run = run_recipe(recipe, "prepare")
    scored, results = ScoredSet(recipe, run, "test", Backend()), []
    for repeat in range(args.seeds):
        bench = Bench(recipe, args.share, repeat, scored, run, args.curve)
        options = PseudoLabelOptions(args.min_agreement, args.min_confidence)
        results.append(bench.pseudo_labels(options) if args.only == "pseudo-label" else bench.suggestions())
        write_json(bench.folder / f"{args.only}.json", {name: row.tolist() for name, row in results[-1].items()})
        report(results, scored)
    return 0


if __name__ == "__main__":
    import logging

    logging.basicConfig(level=logging.WARNING)
    sys.exit(main())
