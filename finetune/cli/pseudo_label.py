"""`finetune pseudo-label`: transcribes untranscribed audio for training."""

import argparse
from typing import TYPE_CHECKING

from finetune.cli.arguments import Subparsers, add_options, add_untranscribed_arguments, chosen_options
from finetune.core.curation_options import PseudoLabelOptions
from finetune.core.terminal import visible
from finetune.core.wording import count

if TYPE_CHECKING:
    from finetune.curation.pseudo_label import PseudoLabelSummary


def add_parser(subparsers: Subparsers) -> None:
    text = "transcribe untranscribed audio with an adapted model, and keep the clips whose text is probably right"
    parser = subparsers.add_parser(
        "pseudo-label",
        help=text,
        description=f"{text[0].upper()}{text[1:]}: the texts of the CTC head and of the language model agree, with "
        "enough confidence. The other clips are set aside with the reason (docs/curation.md).",
        epilog="example: finetune pseudo-label my.yaml calls/ -o pseudo.jsonl",
    )
    defaults = PseudoLabelOptions()
    add_untranscribed_arguments(parser, defaults)
    add_options(
        parser,
        defaults,
        ("min-agreement", "P", "smallest share of words on which both texts agree, 0 to 1"),
        ("min-confidence", "P", "smallest confidence, 0 to 1"),
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Transcribes and prints a summary. Returns 1 if no clip was kept.

    Raises:
        RecipeError: an option is out of range, or the recipe cannot be read.
        CheckpointError: the run has no trained adapter.
        DataError: the source cannot be used, or a result exists already.
        ModelError: the model cannot be loaded.
    """
    options = chosen_options(args, PseudoLabelOptions)

    from finetune.curation.adapted_model import find_model
    from finetune.curation.outputs import CurationFiles
    from finetune.curation.pseudo_label import pseudo_label

    files = CurationFiles.of(args.output)
    files.check(args.source, args.overwrite)
    summary = pseudo_label(find_model(args.model), args.source, options, files)
    print(visible("\n".join(_lines(summary))))
    print(visible(f"manifest: {files.manifest}\nset aside: {files.set_aside}"))
    return 0 if summary.kept else 1


def _lines(summary: "PseudoLabelSummary") -> list[str]:
    """The summary as text."""
    lines = [
        f"{summary.kept} of {count(summary.clips, 'clip')} kept, {summary.kept_seconds / 60:.1f} of "
        f"{summary.seconds / 60:.1f} minutes"
    ]
    lines += [f"set aside: {count(number, 'clip')}: {reason}" for reason, number in summary.set_aside.items()]
    if summary.transcribed:
        lines.append(f"left out: {count(summary.transcribed, 'row')} with a transcript already")
    if not summary.kept:
        lines.append(
            "no clip was kept: the model is too unsure of this speech. Adapt it with more transcripts first; "
            "lower --min-agreement and --min-confidence keep more, with more errors"
        )
    return lines
