"""What `finetune transcribe` writes: transcripts to files or standard output, messages to standard error.

An export contains a copy of this file.
"""

import errno
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from finetune.core.errors import DataError, RecipeError
from finetune.core.files import write_text
from finetune.core.options import TranscribeOptions
from finetune.core.terminal import shortened, visible
from finetune.core.wording import count, first_of
from finetune.data.byte_range import stem_of

if TYPE_CHECKING:
    from finetune.inference.transcript import Transcript

MAX_NAMES = 5  # files that an error message lists
Targets = dict[tuple[str, int | None], Path]  # the output file of each input, or of each of its channels


def output_files(paths: list[str], form: str, folder: str | None, each: bool) -> Targets:
    """The output file of each input, or of each channel of each input; empty without a folder."""
    if folder == "-":
        raise RecipeError("--output -: name a folder, or leave out --output to print the transcripts")
    if folder is None:
        if form in ("srt", "vtt", "tsv") and (each or len(paths) > 1):
            what = "several channels" if each else f"{len(paths)} files"
            raise RecipeError(f"{what} as {form} cannot be printed together; set --output DIR")
        return {}
    targets: Targets = {}
    for path in paths:
        for channel in _channels(path) if each else [None]:
            suffix = "txt" if form == "text" else form
            part = "" if channel is None else f".ch{channel}"
            target = Path(folder) / f"{stem_of(path)}{part}.{suffix}"
            conflict = next((name for (name, _), used in targets.items() if used == target and name != path), None)
            if conflict is not None:
                raise DataError(f"{path}: {target} is also the output of {conflict}; rename one of the two")
            targets[path, channel] = target
    return targets


def _channels(path: str) -> range:
    """The channels of a file; none if it cannot be opened, which is reported when it is transcribed."""
    from finetune.data.audio_file import count_channels

    try:
        return range(count_channels(path))
    except DataError:
        return range(0)


def prepare_output(folder: Path, targets: Targets, overwrite: bool) -> None:
    """Creates the folder; refuses targets that exist, or that are an input, before any work is done.

    Raises:
        DataError: the folder cannot be written, or a file would be lost.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        inputs = {os.path.realpath(path) for path, _ in targets}
        existing = [path for path in targets.values() if os.path.lexists(path)]
    except (OSError, ValueError) as error:
        raise DataError(f"{folder}: cannot be written ({getattr(error, 'strerror', None) or error})") from error
    if replaced := [path for path in existing if os.path.realpath(path) in inputs]:
        raise DataError(f"{replaced[0]}: the output would replace an input; choose another folder for --output")
    if existing and not overwrite:
        names = first_of([*map(str, existing)], MAX_NAMES)
        exist = "exists" if len(existing) == 1 else "exist"
        raise DataError(f"--output: {names} already {exist}; choose another folder, or add --overwrite to replace")


def write_transcript(path: Path, text: str) -> None:
    try:
        write_text(path, text + "\n")
    except OSError as error:
        raise DataError(f"{path}: cannot be written ({error.strerror})") from error


def print_transcript(text: str) -> None:
    """Prints and flushes. Raises BrokenPipeError, and DataError if standard output cannot be written."""
    try:
        print(visible(text) if sys.stdout.isatty() else text, flush=True)
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # otherwise the exit of the interpreter fails
        if isinstance(error, BrokenPipeError):
            raise
        raise DataError(f"standard output cannot be written ({error.strerror})") from error


def summary_line(transcripts: "list[Transcript]") -> str:
    audio, seconds = sum(item.duration for item in transcripts), sum(item.seconds for item in transcripts)
    acceptances = [item.acceptance for item in transcripts if item.acceptance is not None]
    draft = f", {100 * sum(acceptances) / len(acceptances):.0f} % of the draft accepted" if acceptances else ""
    return f"{audio:.1f} s of audio in {seconds:.1f} s (RTFx {audio / max(seconds, 1e-3):.1f}{draft})"


def log_notes(item: "Transcript", name: str, options: TranscribeOptions) -> None:
    if item.note:
        log_message(f"finetune: {name}: {item.note}")
    if not item.segments:
        log_message(f"finetune: {name}: no speech")
    elif item.no_speech_windows:
        log_message(f"finetune: {name}: no speech found in {count(item.no_speech_windows, 'window')}, without text")
    if item.truncated:
        log_message(
            f"finetune: {name}: the text of a window reached {options.decoding.max_new_tokens} tokens and was "
            "cut; raise --max-new-tokens"
        )


def log_message(text: str) -> None:
    print(visible(shortened(text)), file=sys.stderr)
