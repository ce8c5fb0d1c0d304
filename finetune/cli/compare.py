"""`finetune compare`: scores several systems on the same clips and tests each against the first."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from finetune.cli.arguments import Subparsers
from finetune.core.options import COMPARE_FOLDER
from finetune.core.prompts import INSTRUCTION
from finetune.core.terminal import visible
from finetune.core.wording import count, length_text
from finetune.metrics.conditions import GRAMMAR, parse_condition

if TYPE_CHECKING:
    from finetune.evaluation.compare_result import CompareResult, SystemComparison
    from finetune.metrics.significance import Interval, PairedDifference

DESCRIPTION = f"""Scores systems on the same clips with the same normalizer, and tests each against the first system.

A system is one of
  runs/NAME           the adapted model's hypotheses in a run directory; runs/NAME:base are those of its base model
  FILE                hypotheses: JSON Lines or CSV/TSV with pred_text and id (or audio_filepath), TRN,
                      or one JSON object of texts by id
  FOLDER              an exported or base model, or a hub name; it transcribes the clips now
  whisper:SIZE        Whisper with faster-whisper, openai-whisper or transformers, the first that is installed
  openai:MODEL        an OpenAI-compatible endpoint at OPENAI_BASE_URL, with OPENAI_API_KEY

Intervals are 95 % intervals over speakers if there are ten or more, else over recordings or clips. raw WER is the WER
without normalization; sub, del and ins count word errors. P(better) is the fraction of bootstrap replicas in which the
system is better than the first. p (Holm) is the p-value of the difference (sign-flip test), adjusted for the number of
systems. The verdict is "better" or "worse" if it is at most 0.05, and says for which speakers that holds. RTFx is
seconds of audio per second of recognition, measured now or in the run; "-" means not measured.

--fail-if takes {GRAMMAR}.
Numbers are percentage points. The condition is checked for every system except the first, which is `base`. It is about
the rates on these clips: intervals and p-values are not used, and nothing is said about other clips or speakers. Exit
codes: 0 no condition holds, 1 a condition holds or the command failed, 2 wrong usage or
invalid condition."""


def add_parser(subparsers: Subparsers) -> None:
    parser = subparsers.add_parser(
        "compare",
        help="score runs, models, other recognizers and hypothesis files on the same clips",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description=DESCRIPTION,
        epilog="example: finetune compare runs/quickstart:base runs/quickstart other.jsonl --fail-if 'wer > base'",
    )
    parser.add_argument("systems", nargs="+", metavar="SYSTEM", help="two or more systems; the first is the baseline")
    parser.add_argument(
        "--manifest",
        metavar="FILE",
        help="clips with references; the default is the test set of the first run directory among the systems",
    )
    parser.add_argument("--normalizer", metavar="NAME", help="text normalizer, as evaluate.normalizer of a recipe")
    parser.add_argument("--replicas", type=int, metavar="N", help="bootstrap replicas for each interval")
    parser.add_argument(
        "--terms", metavar="FILE", help="text file with one term per line; the recall of the terms is reported"
    )
    parser.add_argument(
        "--json", metavar="FILE", help="write all figures to this file; only an earlier result is replaced"
    )
    parser.add_argument(
        "--hypotheses",
        metavar="FOLDER",
        default=COMPARE_FOLDER,
        help="keep the hypotheses of systems that transcribe in this folder, and use them again for the same clips, "
        "system and options; delete a file to transcribe again (default: %(default)s)",
    )
    parser.add_argument(
        "--fail-if",
        action="append",
        default=[],
        metavar="CONDITION",
        help="such as 'wer > base + 0.2'; can be repeated",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Compares and prints. Returns 1 if a condition of --fail-if holds.

    Raises:
        RecipeError: an argument is invalid, or two contradict each other.
        DataError, ModelError: see `evaluation.compare.compare`.
    """
    from finetune.evaluation.compare import check_output, compare, scoring_options, write_comparison

    if args.json:
        check_output(Path(args.json))
    conditions = [parse_condition(text) for text in args.fail_if]
    result = compare(
        args.systems,
        args.manifest,
        scoring_options(args.normalizer, args.replicas),
        args.terms,
        INSTRUCTION,
        conditions,
        folder=Path(args.hypotheses),
    )
    print(visible("\n".join(format_comparison(result))))
    if args.json:
        write_comparison(Path(args.json), result)
    for line in result.fired:
        print(visible(f"condition holds: {line}"))
    return 1 if result.fired else 0


def format_comparison(result: "CompareResult") -> list[str]:
    """A line on the data, a table of systems, a table of comparisons, and the notes."""
    from finetune.metrics.scores import empty_references_note

    baseline = next(iter(result.systems))
    first = result.systems[baseline]
    notes = [
        first.blocks.note,
        *_with_names({name: entry.interval.note for name, entry in result.systems.items()}),
        *_with_names({f"{name} against {baseline}": row.note for name, row in result.comparisons.items()}),
        *_with_names({name: empty_references_note(entry) for name, entry in result.systems.items()}),
        *result.notes,
        *(["no term is in a reference, so there is no recall"] if first.terms and not first.terms.support else []),
        *(
            f"{name}: no text for {entry.silent} of {count(entry.with_speech, 'clip')} with speech: its error rate "
            "says nothing"
            for name, entry in result.systems.items()
            if entry.mostly_silent
        ),
        *_suspicious_clips(result),
        *_normalizer_changes(result),
    ]
    unit = "character" if first.error_name == "CER" else "word"
    return [
        f"{count(result.clips, 'clip')}, {length_text(first.audio_seconds / 3600)}, {count(result.words, unit)}; "
        f"normalizer {result.settings.normalizer}; intervals by {first.blocks.unit}",
        "",
        *_systems_table(result),
        "",
        *_comparisons_table(result),
        *([""] if any(notes) else []),
        *dict.fromkeys(note for note in notes if note),
    ]


def _with_names(notes: dict[str, str]) -> list[str]:
    """The notes by the name of what they are about; without it if it is true of all."""
    if len({*notes.values()}) == 1:
        return [*notes.values()]
    return [f"{name}: {note}" for name, note in notes.items() if note]


def _name_width(result: "CompareResult") -> int:
    return max(map(len, [*result.systems, f"against {next(iter(result.systems))}"]))


def _systems_table(result: "CompareResult") -> list[str]:
    width, terms = _name_width(result), result.settings.terms
    rate = next(iter(result.systems.values())).error_name
    lines = [
        f"{'':{width}}  {f'{rate} % (95 % CI)':>22}{f'raw {rate}':>9}{'CER':>7}{'sub':>6}{'del':>6}{'ins':>6}"
        + f"{'recall':>8}" * bool(terms)
        + f"{'RTFx':>8}"
    ]
    for name, entry in result.systems.items():
        rates = f"{_rate(entry.wer, entry.interval):>22}{100 * entry.raw_error:9.1f}{100 * entry.cer:7.1f}"
        if entry.without_words:
            rates = f"{'-':>22}{'-':>9}{'-':>7}"
        counts = f"{entry.substitutions:6}{entry.deletions:6}{entry.insertions:6}"
        recall = f"{_percent(entry.terms.recall):>8}" if entry.terms else ""
        speed = f"{entry.rtfx:.1f}" if entry.rtfx else "-"
        lines.append(f"{name:{width}}  {rates}{counts}{recall}{speed:>8}")
    return lines


def _comparisons_table(result: "CompareResult") -> list[str]:
    baseline, *candidates = result.systems
    width = _name_width(result)
    lines = [
        f"{f'against {baseline}':{width}}  {'difference (95 % CI)':>22}{'P(better)':>11}{'p (Holm)':>10}"
        f"{'MAPSSWE p':>11}  verdict"
    ]
    for name in candidates:
        row, known = result.comparisons[name], not result.systems[name].without_words
        difference = _rate(row.difference, row, "+") if known else "-"
        p_holm = row.p_holm if known or row.difference else None
        lines.append(
            f"{name:{width}}  {difference:>22}{_percent(row.probability_better if known else None):>11}"
            f"{_p_value(p_holm):>10}{_p_value(row.mapsswe.p_value):>11}  {_verdict(row)}"
        )
    return lines


def _suspicious_clips(result: "CompareResult") -> list[str]:
    notes = []
    for name, entry in result.systems.items():
        if entry.flags:
            kinds = ", ".join(f"{number} {flag}" for flag, number in entry.flags.items())
            rest = entry.without_flagged
            without = (
                f"{entry.error_name} without them {100 * rest.wer:.1f}" if rest.utterances else "these are all clips"
            )
            suspicious = count(entry.utterances - rest.utterances, "suspicious clip")
            notes.append(f"{name}: {suspicious} ({kinds}); {without}")
    return notes


def _normalizer_changes(result: "CompareResult") -> list[str]:
    changes = {
        (change.id, change.side) for entry in result.systems.values() for change in entry.details.normalizer_changes
    }
    if not changes:
        return []
    return [
        f"the normalizer removes at least half of {count(len(changes), 'text')}, such as that of clip "
        f"{min(changes)[0]!r} (--json lists them)"
    ]


def _rate(value: float, interval: "Interval | PairedDifference", sign: str = "") -> str:
    return f"{100 * value:{sign}.1f} ({100 * interval.low:{sign}.1f} to {100 * interval.high:{sign}.1f})"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.0f} %"


def _verdict(row: "SystemComparison") -> str:
    """The verdict, and for whom it holds."""
    from finetune.metrics.blocks import scope_text

    return row.verdict if row.verdict == "not proven" else row.verdict + scope_text(row.scope, row.speakers)


def _p_value(value: float | None) -> str:
    return "-" if value is None else "<0.001" if value < 0.001 else f"{value:.3f}"
