"""`finetune transcribe`: its arguments, what it prints, its exit code. An export carries a copy of it."""

import argparse
import os
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from finetune.core.errors import DataError, FinetuneError, ModelError, RecipeError
from finetune.core.terminal import visible
from finetune.inference.options import DECODERS, FORMATS, HEARD, VADS, WRITTEN, Settings, Wish
from finetune.inference.thresholds import calibrated

if TYPE_CHECKING:
    from finetune.inference.transcript import Transcript

Watch = Callable[[float, float], None]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """All but --model. None is "not said"; defaults are the settings'."""
    parser.add_argument("files", nargs="*", metavar="FILE", help="audio; - is a list of files on standard input")
    parser.add_argument("--files-from", metavar="LIST", help="a text file that names audio files, one a line")
    parser.add_argument(
        "--format", choices=FORMATS, help="text (default), json (one object a line), srt, vtt, or tsv (milliseconds)"
    )
    parser.add_argument("--output", metavar="DIR", help="write one file for each input instead of printing")
    parser.add_argument(
        "--language",
        metavar="CODE",
        help=f"of the speech: {' '.join(HEARD)}; the model hears it by "
        "itself, this is noted in json, and for Japanese no draft is made",
    )
    parser.add_argument("--translate-to", metavar="CODE", help=f"write another language: {' '.join(WRITTEN)}")
    parser.add_argument("--keywords", metavar="A,B", help="words to expect, put into the prompt")
    parser.add_argument("--keywords-file", metavar="LIST", help="a text file of them, one a line")
    parser.add_argument(
        "--decoder",
        choices=DECODERS,
        help="speculative drafts with the CTC head and writes what greedy does; relaxed is faster and "
        "writes a little worse",
    )
    parser.add_argument("--max-entropy", type=float, metavar="NATS", help="relaxed: in place of the calibrated one")
    parser.add_argument("--min-probability", type=float, metavar="P", help="relaxed: likewise")
    parser.add_argument("--vad", choices=VADS, help="what finds pauses: the sound's level (default), or silero-vad")
    parser.add_argument("--batch-seconds", type=float, metavar="S", help="padded audio decoded at once")
    parser.add_argument("--max-new-tokens", type=int, metavar="N", help="for each window of audio")


def run(arguments: argparse.Namespace, settings: Settings, model: str, watch: Watch | None) -> int:
    """Transcribes, prints or writes; 1 where a file could not be read.

    Args:
        watch: called with the seconds of audio heard and those found so far.

    Raises:
        BrokenPipeError: nobody reads standard output any more.
        RecipeError: arguments that contradict each other, no files, an unknown language, a bad keyword.
        DataError: none of the files is there; a list of them cannot be read, or an output not written.
        ModelError: the model cannot be loaded, or does not take this prompt.
    """
    paths = _paths(arguments)
    given = {
        name: getattr(arguments, name)
        for name in ("format", "decoder", "max_entropy", "min_probability", "vad", "batch_seconds", "max_new_tokens")
    }
    settings = replace(
        calibrated(settings, model), **{name: value for name, value in given.items() if value is not None}
    )
    if settings.decoder != "relaxed" and {arguments.max_entropy, arguments.min_probability} != {None}:
        raise RecipeError("--max-entropy and --min-probability are thresholds of --decoder relaxed")
    keywords = [*(arguments.keywords or "").split(","), *_lines(arguments.keywords_file)]
    wish = Wish.of(arguments.language, arguments.translate_to, keywords)
    targets = _targets(paths, settings.format, arguments.output)
    if not any(Path(path).exists() for path in paths):
        raise DataError("\n".join(f"{path}: no such file" for path in paths))
    if arguments.output:
        try:
            Path(arguments.output).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise DataError(f"{arguments.output}: cannot be written ({error.strerror})") from error

    from finetune.inference.subtitles import render
    from finetune.inference.transcribe import load, request_for, transcripts
    from finetune.inference.transcript import Transcript

    bad, done = list[str](), list[Transcript]()

    def failed(path: str, error: DataError) -> None:
        bad.append(path)
        _say(str(error))

    for item in transcripts(load(model), paths, request_for(settings, wish), failed, watch):
        done.append(item)
        text = render(item, settings.format)
        if targets:
            target = targets[item.path]
            try:
                target.write_text(text + "\n", encoding="utf-8")
            except OSError as error:
                raise DataError(f"{target}: cannot be written ({error.strerror})") from error
            _print(f"{item.path} -> {target}")
        else:
            _print(f"{item.path}: {text}" if settings.format == "text" and len(paths) > 1 else text)
        if not item.segments:
            _say(f"{item.path}: no words were found")
        if item.truncated:
            _say(f"{item.path}: a window was cut at --max-new-tokens {settings.max_new_tokens}")
    if done:
        _say(_summary(done), plain=True)
    return 1 if bad else 0


def standalone(folder: Path, argv: Sequence[str] | None = None) -> int:
    """The command as an export carries it: the model is `folder`, the settings lie beside the code."""
    parser = argparse.ArgumentParser(
        prog=f"python {folder.name}/transcribe",
        description="Audio files to text with the model in this folder. Needs torch, transformers, soundfile and soxr.",
        epilog=f"example: python {folder.name}/transcribe call.wav",
    )
    add_arguments(parser)
    arguments = parser.parse_args(argv)
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")  # transformers shows one while it opens the weights
    try:
        settings = Settings.beside(folder)
        if settings is None:
            raise ModelError(f"{Settings.file(folder)}: no such file; export again")
        return run(arguments, settings, str(folder), None)
    except FinetuneError as error:
        _say(str(error))
        return 2 if isinstance(error, RecipeError) else 1
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except BrokenPipeError:
        return 128 + signal.SIGPIPE


def _paths(arguments: argparse.Namespace) -> list[str]:
    """The files asked for, with lists read."""
    paths = list[str]()
    for name in arguments.files:
        paths += _lines(name) if name == "-" else [name]
    if arguments.files_from:
        paths += _lines(arguments.files_from)
    if not paths:
        raise RecipeError("no audio files; name some, or give - and a list of them on standard input")
    return paths


def _lines(path: str | None) -> list[str]:
    """What stands in a text file, or for `-` on standard input, one a line."""
    if path is None:
        return []
    try:
        text = sys.stdin.read() if path == "-" else Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: a list that cannot be read ({error})") from error
    return [line.strip() for line in text.removeprefix("\ufeff").split("\n") if line.strip()]


def _targets(paths: list[str], form: str, folder: str | None) -> dict[str, Path]:
    """Where each transcript is written; nowhere without a folder."""
    if folder is None:
        if form in ("srt", "vtt", "tsv") and len(paths) > 1:
            raise RecipeError(f"{len(paths)} files as {form} would run into each other; say --output DIR")
        return {}
    targets: dict[str, Path] = {}
    for path in paths:
        target = Path(folder) / f"{Path(path).stem}.{'txt' if form == 'text' else form}"
        other = next((known for known, taken in targets.items() if taken == target and known != path), None)
        if other is not None:
            raise DataError(f"{path}: {target} is already the output of {other}; rename one of them")
        targets[path] = target
    return targets


def _summary(done: "list[Transcript]") -> str:
    audio, seconds = sum(item.duration for item in done), sum(item.seconds for item in done)
    accepted = [item.acceptance for item in done if item.acceptance is not None]
    share = f", {100 * sum(accepted) / len(accepted):.0f} % of the draft accepted" if accepted else ""
    return f"{audio:.1f} s of audio in {seconds:.1f} s (real-time factor {seconds / audio:.3f}{share})"


def _print(text: str) -> None:
    """A line on standard output at once. Raises BrokenPipeError, and DataError where it cannot be written."""
    try:
        print(visible(text) if sys.stdout.isatty() else text, flush=True)
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or what is left would fail again at the end
        if isinstance(error, BrokenPipeError):
            raise
        raise DataError(f"standard output cannot be written ({error.strerror})") from error


def _say(text: str, plain: bool = False) -> None:
    print(visible(text if plain else f"finetune: {text}"), file=sys.stderr)
