#!/usr/bin/env python3
"""Compares the scores of this toolkit with sclite (Debian package sctk) and kaldialign on random pairs of texts.

    python scripts/compare_scorers.py --pairs 2000

For each normalizer, both tools read the normalized texts of all pairs. Equal to kaldialign must be the errors and the
reference words of each pair; equal to sclite, the substitutions, deletions, insertions and reference words of each
pair. Where sclite's costs (4, 3, 3) prefer other counts with no fewer errors, the pair is counted as `its costs`.
Simulated systems are compared by MAPSSWE and by `sc_stats`; p must agree within 0.01. Exit code 1: something differs.
"""

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import NamedTuple

import jiwer

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from finetune.metrics.alignment import Edit, align, align_words  # noqa: E402
from finetune.metrics.mapsswe import mapsswe  # noqa: E402
from finetune.metrics.multilingual import equal_regions  # noqa: E402
from finetune.metrics.normalizer import NORMALIZERS, WITH_LANGUAGE, joins_compounds, normalize  # noqa: E402
from finetune.metrics.sclite import Segment, trn  # noqa: E402
from finetune.metrics.wer import error_rate, normalized, score, spaced  # noqa: E402

SCTK = "/usr/lib/sctk/bin"  # where Debian installs it
WORDS = """
the a of to and cat dog stent graft it's don't o'brien twenty-four state-of-the-art Größe Straße été cœur мир слово
λόγος Σίσυφος हिन्दी में 東京 今日は 日 ok okay Mr. Dr. uh um 5 25 2.5 0.5 -5 10:15 1,50 1/2 <5 5% $5 10² v2 B12 ２
""".split()  # noqa: SIM905
PRESETS = [*NORMALIZERS, f"{WITH_LANGUAGE}:de"]
P_TOLERANCE = 0.01


class Counts(NamedTuple):
    """Errors and reference words of a pair."""

    substitutions: int
    deletions: int
    insertions: int
    words: int

    @property
    def errors(self) -> int:
        return self.substitutions + self.deletions + self.insertions

    @property
    def sclite_cost(self) -> int:
        return 4 * self.substitutions + 3 * (self.deletions + self.insertions)


@dataclass(frozen=True)
class Agreement:
    """One normalizer: pairs that differ from each tool; None if a tool is missing.

    `jiwer_split` and `split` have pairs in which jiwer and kaldialign count as many errors, but other substitutions
    (kaldialign with compounds: or one error more); `costs` has those with sclite's costs.
    """

    preset: str
    wer: float
    total: Counts
    jiwer_split: int
    kaldialign: int | None
    split: int | None
    sclite: int | None
    costs: int | None


def random_pairs(seed: int, count: int) -> list[tuple[str, str]]:
    """References and hypotheses: some equal, some empty, with repeated words, few and many errors."""
    rng = Random(seed)
    pairs = []
    for _ in range(count):
        words = rng.sample(WORDS, rng.choice((2, 8, len(WORDS))))
        ref = [rng.choice(words) for _ in range(rng.randrange(25))]
        rate = rng.choice((0.0, 0.05, 0.2, 0.6))
        hyp = [] if rng.random() < 0.03 else list(_with_errors(ref, words, rate, rng))
        pairs.append((" ".join(ref), " ".join(hyp)))
    return pairs


def _with_errors(ref: Sequence[str], words: Sequence[str], rate: float, rng: Random) -> Iterator[str]:
    for word in ref:
        if rng.random() >= rate / 3:
            said = rng.choice(words) if rng.random() < rate / 3 else word
            half = len(said) // 2 if rng.random() < rate / 5 else 0  # spaced like a compound
            yield f"{said[:half]} {said[half:]}".strip()
        while rng.random() < rate / 4:
            yield rng.choice([word, *words])


def own_counts(refs: Sequence[str], hyps: Sequence[str]) -> list[Counts]:
    return [_count(edits) for edits in align_words([ref.split() for ref in refs], [hyp.split() for hyp in hyps])]


def _count(edits: Sequence[Edit]) -> Counts:
    ops = [edit.op for edit in edits]
    return Counts(*(ops.count(op) for op in ("substitute", "delete", "insert")), len(ops) - ops.count("insert"))


def jiwer_substitutions(refs: Sequence[str], hyps: Sequence[str]) -> list[int]:
    return [jiwer.process_words(ref, hyp).substitutions for ref, hyp in zip(refs, hyps, strict=True)]


def kaldialign_counts(refs: Sequence[str], hyps: Sequence[str], compounds: bool) -> list[Counts] | None:
    """With compounds: after the leaderboard's first rule, which is not kaldialign's."""
    try:
        import kaldialign
    except ImportError:
        return None
    if compounds:
        hyps = list(map(equal_regions, refs, hyps))
    results = [
        kaldialign.edit_distance(ref.split(), hyp.split(), merge_compounds=compounds)
        for ref, hyp in zip(refs, hyps, strict=True)
    ]
    return [Counts(*(int(result[key]) for key in ("sub", "del", "ins", "ref_len"))) for result in results]


def tool(name: str) -> str | None:
    return shutil.which(name) or shutil.which(name, path=SCTK)


def _sclite(refs: Sequence[str], hyps: Sequence[str], output: str, system: str = "hyp") -> str:
    """Runs sclite on normalized texts and returns its report."""
    with tempfile.TemporaryDirectory() as folder:
        for name, texts in (("ref", refs), (system, hyps)):
            segments = [Segment(f"{i:05}", f"s{i % 10}", 1.0, text) for i, text in enumerate(texts)]
            (Path(folder) / name).write_text("".join(f"{line}\n" for line in trn(segments, "none")), encoding="utf-8")
        command = [tool("sclite") or "sclite", "-s", "-r", "ref", "-h", system, "-i", "spu_id", "-e", "utf-8"]
        done = subprocess.run(
            [*command, "-o", output, "stdout"], cwd=folder, capture_output=True, text=True, encoding="utf-8", check=True
        )
    return done.stdout


def sclite_counts(refs: Sequence[str], hyps: Sequence[str]) -> list[Counts] | None:
    if not tool("sclite"):
        return None
    report = _sclite(refs, hyps, "pralign")
    rows = re.findall(r"^id: \(s\d-(\d+)\)\nScores: \(#C #S #D #I\) (\d+) (\d+) (\d+) (\d+)", report, re.M)
    by_id = {int(row[0]): tuple(map(int, row[1:])) for row in rows}
    return [Counts(s, d, i, c + s + d) for c, s, d, i in (by_id[index] for index in range(len(refs)))]


def agreement(preset: str, pairs: Sequence[tuple[str, str]]) -> Agreement:
    texts = [list(column) for column in zip(*pairs, strict=True)]
    unmatched = [spaced(normalize(text, preset), preset) for text in texts[1]]
    refs, hyps = ([spaced(text, preset) for text in column] for column in normalized(*texts, preset))
    own, sclite = own_counts(refs, hyps), sclite_counts(refs, hyps)
    kaldi = kaldialign_counts(refs, unmatched, joins_compounds(preset))
    total = Counts(*map(sum, zip(*own, strict=True)))
    wer = score(*texts, preset)
    scored = Counts(wer.substitutions, wer.deletions, wer.insertions, wer.reference_words)
    if scored != total or wer.wer != error_rate(total.errors, total.words):
        raise AssertionError(f"{preset}: score has {scored}, its pairs sum to {total}")
    kaldialign_differs = split = sclite_differs = costs = None
    if kaldi:
        fewer = int(joins_compounds(preset))  # see multilingual.match_compounds
        same = [a.words == b.words and 0 <= b.errors - a.errors <= fewer for a, b in zip(own, kaldi, strict=True)]
        kaldialign_differs = same.count(False)
        split = sum(a != b for a, b in zip(own, kaldi, strict=True)) - kaldialign_differs
    if sclite:
        other = [(a, b) for a, b in zip(own, sclite, strict=True) if a != b]
        costs = sum(a.words == b.words and b.errors >= a.errors and b.sclite_cost <= a.sclite_cost for a, b in other)
        sclite_differs = len(other) - costs
    jiwer_split = sum(a.substitutions != b for a, b in zip(own, jiwer_substitutions(refs, hyps), strict=True))
    return Agreement(preset, wer.wer, total, jiwer_split, kaldialign_differs, split, sclite_differs, costs)


def mapsswe_pair(seed: int, utterances: int, rates: tuple[float, float]) -> tuple[float, float]:
    """The p-value of MAPSSWE here and of sc_stats (0.0005 for "<0.001") for two simulated systems."""
    rng = Random(seed)
    words = [f"w{number}" for number in range(300)]
    refs = [" ".join(rng.choices(words, k=rng.randrange(3, 25))) for _ in range(utterances)]
    systems = [[" ".join(_with_errors(ref.split(), words, rate, rng)) for ref in refs] for rate in rates]
    own = mapsswe(*(align(refs, hyps, "none") for hyps in systems)).p_value
    sgml = "".join(_sclite(refs, hyps, "sgml", f"sys{number}") for number, hyps in enumerate(systems))
    with tempfile.TemporaryDirectory() as folder:
        command = [tool("sc_stats") or "sc_stats", "-p", "-t", "mapsswe", "-u", "-n", "out"]
        subprocess.run(command, cwd=folder, input=sgml, capture_output=True, text=True, check=True)
        report = (Path(folder) / "out.stats.unified").read_text(encoding="utf-8")
    match = re.search(r"\|\s+MP\s+\|\|\s+sys0\s+\|\s+\|\s+(?:~|sys\d)\s+(<?)\s*([\d.]+)", report)
    if match is None or own is None:
        raise AssertionError(f"no p-value: own {own}, sc_stats:\n{report}")
    return own, float(match[2]) / (2 if match[1] else 1)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=2000, help="default: %(default)s")
    parser.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    args = parser.parse_args()
    pairs, failed = random_pairs(args.seed, args.pairs), False
    print(f"{args.pairs} pairs, seed {args.seed}; columns of the tools: pairs that differ (- is: not installed)")
    columns = "normalizer | N | S | D | I | WER % | jiwer: other S | kaldialign: errors, N | other S | sclite: all"
    columns += " | its costs"
    print(f"| {columns} |\n|{'---|' * 11}")
    for preset in PRESETS:
        row = agreement(preset, pairs)
        total = row.total
        figures = [total.words, *total[:3], f"{100 * row.wer:.4f}", row.jiwer_split, row.kaldialign, row.split]
        figures += [row.sclite, row.costs]
        print(f"| {preset} | " + " | ".join("-" if item is None else str(item) for item in figures) + " |")
        failed |= bool(row.kaldialign or row.sclite)
    if tool("sc_stats"):
        print("\n| MAPSSWE: utterances, error rates | p here | p of sc_stats |\n|---|---|---|")
        for seed, (utterances, rates) in enumerate(
            [(100, (0.2, 0.2)), (300, (0.2, 0.17)), (300, (0.3, 0.27)), (600, (0.1, 0.09)), (600, (0.2, 0.2))]
        ):
            own, other = mapsswe_pair(args.seed + seed, utterances, rates)
            print(f"| {utterances}, {rates[0]} and {rates[1]} | {own:.4f} | {other:.4f} |")
            failed |= abs(own - other) > P_TOLERANCE
    print("DIFFERENT" if failed else "equal")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
