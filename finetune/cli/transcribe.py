"""`finetune transcribe`: a call from its arguments to its exit code. An export contains a copy of this file."""

import argparse
import os
import shlex
import signal
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from finetune.cli.transcribe_arguments import add_arguments, audio_paths, options_from
from finetune.cli.transcribe_output import (
    MAX_NAMES,
    log_message,
    log_notes,
    output_files,
    prepare_output,
    print_transcript,
    summary_line,
    write_transcript,
)
from finetune.core.errors import DataError, FinetuneError, ModelError, RecipeError
from finetune.core.model_limits import read_limits
from finetune.core.options import FORMATS, TranscribeOptions
from finetune.core.prompts import read_profile
from finetune.core.terminal import prepare_streams
from finetune.core.unexpected import explain
from finetune.core.wording import count
from finetune.data.audio_state import has_bytes
from finetune.inference.saved_options import options_for, options_path, read_options
from finetune.model.model_source import check_source

if TYPE_CHECKING:
    from finetune.inference.transcript import Transcript

Progress = Callable[[float, float], None]  # seconds of audio transcribed, seconds read so far
Failed = Callable[[str, DataError], None]
Transcribe = Callable[[list[str], TranscribeOptions, Failed], "Iterator[Transcript]"]


def run(
    args: argparse.Namespace,
    saved: TranscribeOptions,
    model: str,
    progress: Progress | None,
    transcribe: Transcribe | None = None,
) -> int:
    """Transcribes, then prints or writes the transcripts. Returns 1 if a file cannot be read.

    Args:
        saved: the options of the model.
        progress: called with the seconds of audio transcribed and those read so far.
        transcribe: transcribes the files; None does it in this process.

    Raises:
        BrokenPipeError: standard output was closed.
        RecipeError: contradictory arguments, no files, an unknown language, a bad keyword.
        DataError: no file exists, a list cannot be read, an output exists already, or cannot be written.
        ModelError: the model is not there, is damaged, or does not accept this prompt.
    """
    from finetune.inference.keyword_warning import option_warnings

    paths, form = audio_paths(args), args.format or FORMATS[0]
    options = options_from(args, saved)
    for warning in option_warnings(options, read_profile(model), read_limits(model)):
        log_message(f"finetune: warning: {warning}")
    targets = output_files(paths, form, args.output, options.channel == "each")
    if not any((os.path.exists(path) and not os.path.isdir(path)) or has_bytes(path) for path in paths):
        more = [f"... and {count(len(paths) - MAX_NAMES, 'more file')}"] if len(paths) > MAX_NAMES else []
        raise DataError("\n".join([*(f"{path[:200]}: {_missing(path)}" for path in paths[:MAX_NAMES]), *more]))
    check_source(model)
    if args.output:
        prepare_output(Path(args.output), targets, args.overwrite)

    failures, transcribed = list[str](), list["Transcript"]()

    def failed(path: str, error: DataError) -> None:
        failures.append(path)
        log_message(f"finetune: {error}")

    for item in transcribe(paths, options, failed) if transcribe else _here(model, paths, options, failed, progress):
        transcribed.append(item)
        channel = item.channel if options.channel == "each" else None
        name = item.path if channel is None else f"{item.path} [ch{channel}]"
        if targets:
            target = targets[item.path, channel]
            write_transcript(target, item.render(form))
            print_transcript(f"{name} -> {target}")
        else:
            prefix = f"{name}: " if form == "text" and (len(paths) > 1 or channel is not None) else ""
            print_transcript(prefix + item.render(form))
        log_notes(item, name, options)
    if transcribed:
        log_message(summary_line(transcribed))
    return 1 if failures else 0


def _missing(path: str) -> str:
    if not os.path.isdir(path):
        return "no such file"
    return f"a folder; give its files, such as {os.path.join(shlex.quote(path.rstrip(os.sep) or path), '*.wav')}"


def _here(
    model: str, paths: list[str], options: TranscribeOptions, failed: Failed, progress: Progress | None
) -> "Iterator[Transcript]":
    from finetune.inference.transcribe import load, transcripts

    return transcripts(load(model, say=log_message), paths, options, failed, progress)


def standalone(folder: Path, argv: Sequence[str] | None = None) -> int:
    """The command of an export: the model is `folder`, with its own options."""
    parser = argparse.ArgumentParser(
        prog=f"python {folder.name}/transcribe",
        description="Transcribes audio files with the model in this folder. Needs torch, transformers, soundfile and "
        "soxr; M4A, WebM, WMA and video also need av; https:// needs requests, other URLs fsspec.",
        epilog=f"example: python {folder.name}/transcribe call.wav",
    )
    add_arguments(parser)
    prepare_streams()
    args = parser.parse_args(argv)
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")  # transformers shows one while it loads weights
    try:
        if read_options(folder) is None:
            raise ModelError(f"{options_path(folder)}: no such file; run `finetune export` again")
        return run(args, options_for(folder), str(folder), None)
    except FinetuneError as error:
        log_message(f"finetune: {error}")
        return 2 if isinstance(error, RecipeError) else 1
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except BrokenPipeError:
        return 128 + signal.SIGPIPE
    except Exception as error:
        log_message(f"finetune: {explain(error)}")
        return 1
