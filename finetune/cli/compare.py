"""`finetune compare`: its arguments, its table, its exit code."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetune.core.terminal import visible
from finetune.metrics.conditions import GRAMMAR, parse_condition

if TYPE_CHECKING:
    from finetune.evaluation.compare import CompareResult

DESCRIPTION = f"""Scores systems on the same clips, under the same normalizer, and tests each against the first.

A system is one of
  runs/NAME           the adapted model's hypotheses that a run keeps; runs/NAME:base are its base's
  FILE                hypotheses: JSON Lines or CSV/TSV with pred_text and id (or audio_filepath), or TRN
  FOLDER              an exported or base model, which listens now; a hub name too
  whisper:SIZE        Whisper by faster-whisper, openai-whisper or transformers, whichever is installed first
  openai:MODEL        an OpenAI-compatible endpoint at OPENAI_BASE_URL, with OPENAI_API_KEY

The interval is of 95 %, drawn by speaker where there are enough; raw is the WER of texts as written; p is of the
difference, adjusted for the number of systems (Holm). RTFx is seconds of audio in a second of recognition, measured
here or in the run; "-" is not measured.

--fail-if takes {GRAMMAR}.
Figures are points of 100 and the condition is asked of every system but the first, which is `base`; intervals play no
part. Exit codes: 0 none holds, 1 one holds or something failed, 2 wrong usage or a condition that cannot be read."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("systems", nargs="+", metavar="SYSTEM", help="two or more; the first is the one to beat")
    parser.add_argument(
        "--manifest",
        metavar="FILE",
        help="the clips and what is said in them; without it the test set of the first run directory among the systems",
    )
    parser.add_argument("--normalizer", metavar="NAME", help="what counts as the same word, as in a recipe")
    parser.add_argument("--replicas", type=int, metavar="N", help="of the bootstrap behind each interval")
    parser.add_argument("--terms", metavar="FILE", help="words whose recall is shown, one a line")
    parser.add_argument("--json", metavar="FILE", help="write all figures there")
    parser.add_argument(
        "--fail-if",
        action="append",
        default=[],
        metavar="CONDITION",
        help="such as 'wer > base + 0.2'; may be repeated",
    )


def run(arguments: argparse.Namespace) -> int:
    """Compares, prints, and says by the exit code whether a condition holds.

    Raises:
        RecipeError: arguments that cannot be read or contradict each other.
        DataError, ModelError: as `compare.compare`.
    """
    from pydantic import ValidationError

    from finetune.core.config import EvaluateSection, ModelSection, Recipe
    from finetune.core.errors import RecipeError

    conditions = [parse_condition(text) for text in arguments.fail_if]
    given = {name: getattr(arguments, name) for name in ("normalizer", "replicas")}
    try:
        section = EvaluateSection(**{name: value for name, value in given.items() if value is not None})
    except ValidationError as error:
        faults = (f"--{problem['loc'][0]}: {problem['msg']}" for problem in error.errors())
        raise RecipeError("\n".join(faults)) from error

    from finetune.evaluation.compare import compare, write_comparison
    from finetune.metrics.scorecard import ScoringOptions

    setting = ScoringOptions(
        section.normalizer, section.replicas, Recipe.model_fields["seed"].default, (), frozenset(), {}
    )
    result = compare(
        arguments.systems, arguments.manifest, setting, arguments.terms, ModelSection().instruction, conditions
    )
    print(visible("\n".join(table(result))))
    if arguments.json:
        write_comparison(Path(arguments.json), result)
    for line in result.fired:
        print(visible(f"fails: {line}"))
    return 1 if result.fired else 0


def table(result: "CompareResult") -> list[str]:
    """What was scored and how, a row a system, a row a comparison, and what a reader must know."""
    first, *others = result.systems
    width = max(map(len, [*result.systems, against := f"against {first}"]))
    terms = result.settings["terms"]
    head = result.systems[first]
    lines = [
        f"{result.clips} clips, {head['audio_seconds'] / 60:.1f} min, {result.words} words; normalizer "
        f"{result.settings['normalizer']}; intervals by {head['blocks']['unit']}",
        "",
        f"{'':{width}}  {'WER (95 %)':>22}{'raw':>7}{'CER':>7}{'S':>6}{'D':>6}{'I':>6}"
        + f"{'recall':>8}" * bool(terms)
        + f"{'RTFx':>8}",
    ]
    for name, entry in result.systems.items():
        counts = (f"{entry[kind]:6}" for kind in ("substitutions", "deletions", "insertions"))
        recall = f"{_percent(entry['terms']['recall']):>8}" if terms else ""
        speed = f"{entry['rtfx']:.1f}" if entry["rtfx"] else "-"
        lines.append(
            f"{name:{width}}  {_rate(entry['wer'], entry['interval']):>22}{100 * entry['raw_wer']:7.1f}"
            f"{100 * entry['cer']:7.1f}{''.join(counts)}{recall}{speed:>8}"
        )
    lines += ["", f"{against:{width}}  {'difference (95 %)':>22}{'better':>8}{'p':>8}{'MAPSSWE':>9}  verdict"]
    for name in others:
        row = result.comparisons[name]
        lines.append(
            f"{name:{width}}  {_rate(row['difference'], row, '+'):>22}{_percent(row['probability_better']):>8}"
            f"{_small(row['p_holm']):>8}{_small(row['mapsswe']['p_value']):>9}  {row['verdict']}"
        )
    doubts = [
        head["blocks"]["note"],
        *(entry["interval"]["note"] for entry in result.systems.values()),
        *(row["note"] for row in result.comparisons.values()),
        *result.notes,
        *_flagged(result),
    ]
    return [*lines, *([""] if any(doubts) else []), *dict.fromkeys(note for note in doubts if note)]


def _flagged(result: "CompareResult") -> list[str]:
    found = []
    for name, entry in result.systems.items():
        if entry["flags"]:
            kinds = ", ".join(f"{count} {flag}" for flag, count in entry["flags"].items())
            found.append(
                f"{name}: {entry['utterances'] - entry['without_flagged']['utterances']} suspicious clips "
                f"({kinds}); WER without them {100 * entry['without_flagged']['wer']:.1f}"
            )
    changes = {
        (change["id"], change["side"])
        for entry in result.systems.values()
        for change in entry["details"]["normalizer_changes"]
    }
    if changes:
        found.append(
            f"the normalizer empties or halves {len(changes)} texts, such as that of {min(changes)[0]!r} "
            "(--json lists them)"
        )
    return found


def _rate(value: float, interval: dict[str, Any], sign: str = "") -> str:
    return f"{100 * value:{sign}.1f} ({100 * interval['low']:{sign}.1f} to {100 * interval['high']:{sign}.1f})"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.0f} %"


def _small(value: float | None) -> str:
    return "-" if value is None else "<0.001" if value < 0.001 else f"{value:.3f}"
