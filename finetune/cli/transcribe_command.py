"""`finetune transcribe` of the toolkit: `cli.transcribe` with --model and a progress bar.

An export contains a copy of `cli.transcribe`, without this file.
"""

import argparse
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

from finetune.cli import transcribe
from finetune.cli.arguments import Subparsers
from finetune.cli.transcribe_arguments import add_arguments
from finetune.core.errors import RecipeError
from finetune.inference.saved_options import options_for

MIN_AUDIO_FOR_BAR = 60.0  # seconds; shorter jobs show no progress bar


def add_parser(subparsers: Subparsers) -> None:
    text = "transcribe audio files with a base or exported model"
    parser = subparsers.add_parser(
        "transcribe",
        help=text,
        description=text,
        epilog="example: finetune transcribe call.wav --model runs/quickstart/export --format srt",
    )
    parser.add_argument("--model", required=True, metavar="DIR", help="exported folder, base model or hub name")
    parser.add_argument(
        "--processes",
        type=int,
        default=1,
        metavar="N",
        help="processes that transcribe whole files side by side, each with its own model; 0 is one for each GPU",
    )
    add_arguments(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace, min_audio_for_bar: float = MIN_AUDIO_FOR_BAR) -> int:
    """Transcribes with the model's own options. Raises the errors of `transcribe.run`."""
    saved, processes = options_for(args.model), _processes(args.processes)
    if processes > 1:
        from finetune.inference.shared_transcripts import shared_transcripts

        return transcribe.run(
            args, saved, args.model, None, partial(shared_transcripts, args.model, processes=processes)
        )
    with _progress_bar(min_audio_for_bar) as progress:
        return transcribe.run(args, saved, args.model, progress)


def _processes(count: int) -> int:
    """The number of processes. Raises RecipeError if it is negative."""
    if count < 0:
        raise RecipeError(f"--processes {count}: must be 0 or more")
    if count:
        return count
    import torch

    return max(1, torch.cuda.device_count())


@contextmanager
def _progress_bar(min_audio: float) -> Iterator[transcribe.Progress | None]:
    """A progress bar on standard error, for `min_audio` seconds or more; None if standard error is not a terminal."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import Progress

    # Lines printed to a terminal appear above the bar.
    bar = Progress(console=Console(stderr=True), transient=True, redirect_stdout=sys.stdout.isatty())
    task = bar.add_task("transcribing")

    def watch(transcribed: float, total: float) -> None:
        if total > min_audio:
            bar.start()
        bar.update(task, completed=transcribed, total=total)

    try:
        yield watch
    finally:
        bar.stop()
