"""`finetune suggest`: which untranscribed clips to transcribe next."""

import argparse
from typing import TYPE_CHECKING

from finetune.cli.arguments import Subparsers, add_options, add_untranscribed_arguments, chosen_options
from finetune.core.curation_options import SuggestOptions
from finetune.core.terminal import visible
from finetune.core.wording import count, verb

if TYPE_CHECKING:
    from finetune.curation.suggest import SuggestSummary


def add_parser(subparsers: Subparsers) -> None:
    text = "rank untranscribed clips by how much their transcripts would teach"
    parser = subparsers.add_parser(
        "suggest",
        help=text,
        description=f"{text[0].upper()}{text[1:]}: entropy of the CTC head, disagreement of the base and the adapted "
        "model, rare words; near copies come last (docs/curation.md).",
        epilog="example: finetune suggest my.yaml calls/ -o next.jsonl --hours 2",
    )
    defaults = SuggestOptions()
    add_untranscribed_arguments(parser, defaults)
    add_options(parser, defaults, ("max-similarity", "P", "clips with more similar texts are near copies"))
    budget = parser.add_mutually_exclusive_group()
    budget.add_argument("--clips", type=int, metavar="N", help="write the best N clips (default: all, ranked)")
    budget.add_argument("--hours", type=float, metavar="H", help="write the best clips, up to H hours of audio")
    parser.add_argument(
        "--texts",
        action="append",
        default=[],
        metavar="CORPUS",
        help="training texts, from which words are known; those of a recipe or run are known already",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Ranks and prints a summary. Returns 1 if there is no usable clip.

    Raises:
        RecipeError: an option is out of range, or the recipe cannot be read.
        CheckpointError: the run has no trained adapter.
        DataError: the source cannot be used, or a result exists already.
        ModelError: a model cannot be loaded.
    """
    options = chosen_options(args, SuggestOptions)

    from finetune.curation.adapted_model import find_model
    from finetune.curation.outputs import CurationFiles
    from finetune.curation.suggest import Budget, suggest

    budget, files = Budget(args.clips, args.hours), CurationFiles.of(args.output)
    files.check(args.source, args.overwrite)
    summary = suggest(find_model(args.model), args.source, args.texts, budget, options, files)
    print(visible("\n".join(_lines(summary))))
    print(visible(f"manifest: {files.manifest}\nset aside: {files.set_aside}"))
    return 0 if summary.suggested else 1


def _lines(summary: "SuggestSummary") -> list[str]:
    """The summary as text."""
    lines = [
        f"{summary.suggested} of {count(summary.clips, 'clip')} suggested, {summary.suggested_seconds / 60:.1f} of "
        f"{summary.seconds / 60:.1f} minutes; {summary.near_copies} "
        f"{verb(summary.near_copies, 'is a near copy', 'are near copies')} of a better one",
        f"disagreement: {summary.compared}; rare words: by {count(summary.training_texts, 'training text')}",
    ]
    lines += [f"set aside: {count(number, 'clip')}: {reason}" for reason, number in summary.set_aside.items()]
    if summary.transcribed:
        lines.append(f"left out: {count(summary.transcribed, 'row')} with a transcript already")
    if not summary.training_texts:
        lines.append("no training texts are known, so every word counts as rare; give them with --texts")
    if not summary.suggested:
        lines.append("no clip was suggested: none has speech, or the shortest exceeds --hours")
    return lines
