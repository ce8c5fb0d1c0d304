"""Arguments, output and exit code of `finetune transcribe`. An export contains a copy of this file."""

import argparse
import errno
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from finetune.core.errors import DataError, FinetuneError, ModelError, RecipeError
from finetune.core.files import MAX_LIST_BYTES, read_bytes, write_text
from finetune.core.languages import SPEECH_LANGUAGES, TRANSLATION_TARGETS
from finetune.core.model_limits import read_limits
from finetune.core.options import FORMATS, DecodingOptions, TranscribeOptions, choices, override
from finetune.core.prompts import read_profile
from finetune.core.terminal import prepare_streams, shortened, visible
from finetune.core.unexpected import explain
from finetune.data.audio_state import has_bytes
from finetune.data.byte_range import stem_of
from finetune.inference.saved_options import options_for, options_path, read_options
from finetune.model.model_source import check_source

if TYPE_CHECKING:
    from finetune.inference.transcript import Transcript

MAX_NAMES = 5  # files that an error message lists
Progress = Callable[[float, float], None]  # seconds of audio transcribed, seconds read so far
Failed = Callable[[str, DataError], None]
Transcribe = Callable[[list[str], TranscribeOptions, Failed], "Iterator[Transcript]"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds all arguments except --model. An argument that is not given keeps the option of the model."""
    parser.add_argument(
        "files", nargs="*", metavar="FILE", help="audio file or URL; - reads a list of files from stdin"
    )
    parser.add_argument("--files-from", metavar="LIST", help="text file with one path of an audio file per line")
    parser.add_argument(
        "--format", choices=FORMATS, help=f"{FORMATS[0]} (default), json (one object per line), srt, vtt, or tsv (ms)"
    )
    parser.add_argument("--output", metavar="DIR", help="write one file per input into DIR instead of printing")
    parser.add_argument("--overwrite", action="store_true", help="let --output replace files that exist")
    parser.add_argument(
        "--channel",
        metavar="C",
        help="channel of a file with several: mix (average, default), left, right, a number from 0, or each (one "
        "transcript a channel)",
    )
    parser.add_argument(
        "--language",
        metavar="CODE",
        help=f"spoken language: {' '.join(SPEECH_LANGUAGES)}. The model detects it; the code is written into json, and "
        "Japanese is decoded without a draft",
    )
    parser.add_argument("--translate-to", metavar="CODE", help=f"translate into: {' '.join(TRANSLATION_TARGETS)}")
    parser.add_argument("--keywords", metavar="A,B", help="expected words, added to the prompt")
    parser.add_argument("--keywords-file", metavar="LIST", help="text file with one keyword per line")
    parser.add_argument(
        "--decoder",
        choices=choices(DecodingOptions, "decoder"),
        help="speculative drafts with the CTC head and writes the same text as greedy; relaxed is faster and less "
        "accurate",
    )
    parser.add_argument("--max-entropy", type=float, metavar="NATS", help="threshold of relaxed decoding")
    parser.add_argument("--min-probability", type=float, metavar="P", help="threshold of relaxed decoding")
    parser.add_argument(
        "--vad", choices=choices(TranscribeOptions, "vad"), help="find pauses by sound level (default) or silero-vad"
    )
    parser.add_argument(
        "--max-window",
        type=float,
        metavar="S",
        help="longest window of audio; the default is the longest speech that the model was trained on, at most 30 s",
    )
    parser.add_argument(
        "--no-speech",
        type=float,
        metavar="P",
        help="no text for a window if the CTC head is less certain than this (0 to 1) that it has speech; 0 is off",
    )
    parser.add_argument("--batch-seconds", type=float, metavar="S", help="padded audio in a batch")
    parser.add_argument("--max-new-tokens", type=int, metavar="N", help="tokens per window of audio")


def options_from(args: argparse.Namespace, saved: TranscribeOptions) -> TranscribeOptions:
    """The options of a call: those of the command line, otherwise those of the model.

    Raises:
        RecipeError: a value out of range, an unknown language, a bad keyword, thresholds without relaxed decoding.
        DataError: the list of keywords cannot be read.
    """
    options = override(
        saved,
        channel=args.channel,
        language=args.language,
        translate_to=args.translate_to,
        keywords=[*(args.keywords or "").split(","), *_lines(args.keywords_file)],
        **{
            name: getattr(args, name)
            for name in (
                "decoder",
                "max_entropy",
                "min_probability",
                "vad",
                "max_window",
                "no_speech",
                "batch_seconds",
                "max_new_tokens",
            )
        },
    )
    if options.decoding.decoder != "relaxed" and {args.max_entropy, args.min_probability} != {None}:
        raise RecipeError("--max-entropy and --min-probability need --decoder relaxed")
    return options


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
        ModelError: the model is not there, or is damaged.
        ModelError: the model cannot be loaded, or does not accept this prompt.
    """
    paths, form = _paths(args), args.format or FORMATS[0]
    options = options_from(args, saved)
    prompt = options.prompt(read_profile(model))
    if warning := read_limits(model).prompt_warning(prompt, bool(options.keywords)):
        _log(f"finetune: warning: {warning}")
    targets = _targets(paths, form, args.output, options.channel == "each")
    if not any((os.path.exists(path) and not os.path.isdir(path)) or has_bytes(path) for path in paths):
        more = [f"... and {len(paths) - MAX_NAMES} more files"] if len(paths) > MAX_NAMES else []
        raise DataError("\n".join([*(f"{path[:200]}: {_missing(path)}" for path in paths[:MAX_NAMES]), *more]))
    check_source(model)
    if args.output:
        _prepare_output(Path(args.output), targets, args.overwrite)

    failures, transcribed = list[str](), list["Transcript"]()

    def failed(path: str, error: DataError) -> None:
        failures.append(path)
        _log(f"finetune: {error}")

    for item in transcribe(paths, options, failed) if transcribe else _here(model, paths, options, failed, progress):
        transcribed.append(item)
        channel = item.channel if options.channel == "each" else None
        name = item.path if channel is None else f"{item.path} [ch{channel}]"
        if targets:
            target = targets[item.path, channel]
            _write(target, item.render(form))
            _print(f"{name} -> {target}")
        else:
            prefix = f"{name}: " if form == "text" and (len(paths) > 1 or channel is not None) else ""
            _print(prefix + item.render(form))
        _log_notes(item, name, options)
    if transcribed:
        _log(_summary(transcribed))
    return 1 if failures else 0


def _missing(path: str) -> str:
    return f"a folder; give its files, such as {os.path.join(path, '*.wav')}" if os.path.isdir(path) else "no such file"


def _log_notes(item: "Transcript", name: str, options: TranscribeOptions) -> None:
    if item.note:
        _log(f"finetune: {name}: {item.note}")
    if not item.segments:
        _log(f"finetune: {name}: no speech")
    elif item.no_speech_windows:
        _log(f"finetune: {name}: no speech found in {item.no_speech_windows} windows; they have no text")
    if item.truncated:
        _log(
            f"finetune: {name}: the text of a window reached {options.decoding.max_new_tokens} tokens and was "
            "cut; raise --max-new-tokens"
        )


def _here(
    model: str, paths: list[str], options: TranscribeOptions, failed: Failed, progress: Progress | None
) -> "Iterator[Transcript]":
    from finetune.inference.transcribe import load, transcripts

    return transcripts(load(model, say=_log), paths, options, failed, progress)


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
        _log(f"finetune: {error}")
        return 2 if isinstance(error, RecipeError) else 1
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except BrokenPipeError:
        return 128 + signal.SIGPIPE
    except Exception as error:
        _log(f"finetune: {explain(error)}")
        return 1


def _paths(args: argparse.Namespace) -> list[str]:
    """The audio files of the command line and of its lists."""
    paths = list[str]()
    for name in args.files:
        paths += _lines(name) if name == "-" else [name]
    if args.files_from:
        paths += _lines(args.files_from)
    if not paths:
        raise RecipeError("no audio files; give files, or - to read a list of files from standard input")
    return paths


def _lines(path: str | None) -> list[str]:
    """The non-empty lines of a text file; `-` is standard input."""
    if path is None:
        return []
    try:
        text = sys.stdin.read() if path == "-" else read_bytes(path, MAX_LIST_BYTES).decode("utf-8")
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not a list of lines in UTF-8 ({error.reason})") from error
    return [line.strip() for line in text.removeprefix("\ufeff").split("\n") if line.strip()]


def _targets(paths: list[str], form: str, folder: str | None, each: bool) -> dict[tuple[str, int | None], Path]:
    """The output file of each input, or of each channel of each input; empty without a folder."""
    if folder is None:
        if form in ("srt", "vtt", "tsv") and (each or len(paths) > 1):
            what = "several channels" if each else f"{len(paths)} files"
            raise RecipeError(f"{what} as {form} cannot be printed together; set --output DIR")
        return {}
    targets: dict[tuple[str, int | None], Path] = {}
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


def _prepare_output(folder: Path, targets: dict[tuple[str, int | None], Path], overwrite: bool) -> None:
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
        names = ", ".join(map(str, existing[:MAX_NAMES])) + f" and {len(existing) - MAX_NAMES} more" * (
            len(existing) > MAX_NAMES
        )
        exist = "exists" if len(existing) == 1 else "exist"
        raise DataError(f"--output: {names} already {exist}; choose another folder, or add --overwrite to replace")


def _write(path: Path, text: str) -> None:
    try:
        write_text(path, text + "\n")
    except OSError as error:
        raise DataError(f"{path}: cannot be written ({error.strerror})") from error


def _summary(transcripts: "list[Transcript]") -> str:
    audio, seconds = sum(item.duration for item in transcripts), sum(item.seconds for item in transcripts)
    acceptances = [item.acceptance for item in transcripts if item.acceptance is not None]
    draft = f", {100 * sum(acceptances) / len(acceptances):.0f} % of the draft accepted" if acceptances else ""
    return f"{audio:.1f} s of audio in {seconds:.1f} s (real-time factor {seconds / audio:.3f}{draft})"


def _print(text: str) -> None:
    """Prints and flushes. Raises BrokenPipeError, and DataError if standard output cannot be written."""
    try:
        print(visible(text) if sys.stdout.isatty() else text, flush=True)
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # otherwise the exit of the interpreter fails
        if isinstance(error, BrokenPipeError):
            raise
        raise DataError(f"standard output cannot be written ({error.strerror})") from error


def _log(text: str) -> None:
    print(visible(shortened(text)), file=sys.stderr)
