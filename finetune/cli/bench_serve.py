"""`finetune bench-serve`: measures an OpenAI-compatible transcription server under load."""

import argparse
import math
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from finetune.cli.arguments import Subparsers, add_options, chosen_options
from finetune.core.serve_options import LoadOptions
from finetune.core.terminal import visible
from finetune.core.wording import count

if TYPE_CHECKING:
    from finetune.serving.bench_result import LoadResult, Percentiles, RateResult

DESCRIPTION = """Sends transcription requests to an OpenAI-compatible server and measures its answers.

The load is open: requests arrive at random times (a Poisson process with the given rate), whether or not earlier ones
are answered, as those of independent users do. The latency of a request counts from its planned time. With several
rates, each is measured for itself, in the given order.

SOURCE is an audio file, which is sent as it is, or a corpus, such as a manifest, whose segments are sent as WAV files.
All uploads differ, so that a server with a cache of equal audio computes each of them: a clip that was sent before is
sent as a WAV file that is up to 2 % quieter, with some samples of silence before it. A second run sends the same
uploads; restart a server with a cache before it.

OPENAI_API_KEY is sent as the key if it is set.

Exit codes: 0 all requests got a text, 1 a request failed or the server cannot be reached, 2 wrong usage."""


def add_parser(subparsers: Subparsers) -> None:
    parser = subparsers.add_parser(
        "bench-serve",
        help="measure latency, throughput and errors of a transcription server under load",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description=DESCRIPTION,
        epilog="example: finetune bench-serve http://127.0.0.1:8000/v1 data/vocabulary/test.jsonl --rate 1 2 4",
    )
    parser.add_argument("url", metavar="URL", help="address of the server, such as http://127.0.0.1:8000/v1")
    parser.add_argument("sources", nargs="+", type=Path, metavar="SOURCE", help="audio files and corpora")
    parser.add_argument(
        "--rate", nargs="+", type=_rate, required=True, metavar="R", help="mean requests a second; several in turn"
    )
    add_options(
        parser,
        LoadOptions(),
        ("requests", "N", "requests at each rate"),
        ("warmup", "N", "requests before the measurement, not counted"),
        ("clips", "N", "most different clips; of a larger source, a random sample"),
        ("timeout", "SECONDS", "a request without a complete answer after this time has failed"),
        ("seed", "N", "seed of the arrivals and clips"),
    )
    parser.add_argument("--model", metavar="NAME", help="the default is the first model that the server lists")
    parser.add_argument(
        "--form",
        action="append",
        default=[],
        type=_field,
        metavar="KEY=VALUE",
        help="another field of each request, such as language=es or response_format=verbose_json; can be repeated",
    )
    parser.add_argument("--stream", action="store_true", help="ask for a stream; measures the time to the first text")
    parser.add_argument(
        "--repeat",
        action="store_true",
        help="send clips again without a change: measures caches too, and counts clips whose texts differ",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures to this file")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Measures and prints. Returns 1 if a request failed.

    Raises:
        RecipeError: an option is out of range.
        MissingExtraError: httpx is not installed.
        DataError, ModelError: see `serving.bench`.
    """
    from finetune.core.extras import require
    from finetune.core.files import check_output_file, write_json

    options = chosen_options(args, LoadOptions)
    require("httpx", extra="compare")
    from finetune.serving.bench import load_uploads, measure_server

    if args.json:
        check_output_file(args.json)
    uploads = load_uploads(args.sources, options)
    result = measure_server(args.url, uploads, args.rate, options, args.model, dict(args.form), args.stream)
    print(visible("\n".join(format_load(result))))
    if args.json:
        write_json(args.json, asdict(result))
    return int(result.failed > 0)


def format_load(result: "LoadResult") -> list[str]:
    """A line on the load, one table row for each rate, and the errors and warnings of each."""
    lines = [
        f"{result.model} at {result.url}: {count(result.clips, 'clip')}, "
        f"{result.clip_seconds / result.clips:.1f} s on average, seed {result.seed}",
        "",
        f"{'requests/s':>10}{'answered':>12}{'p50 s':>9}{'p95 s':>9}{'p99 s':>9}{'max s':>9}"
        + f"{'first p50':>11}" * result.stream
        + f"{'RTF p50':>9}{'RTF p95':>9}{'done/s':>9}{'audio s/s':>11}{'at once':>9}{'drain s':>9}",
    ]
    for rate in result.rates:
        latency, factor = rate.latency, rate.real_time_factor
        lines.append(
            f"{rate.rate:>10g}{f'{rate.completed}/{rate.requests}':>12}"
            + "".join(f"{_value(latency, name):>9}" for name in ("p50", "p95", "p99", "max"))
            + f"{_value(rate.first_text, 'p50'):>11}" * result.stream
            + "".join(f"{_value(factor, name):>9}" for name in ("p50", "p95"))
            + f"{rate.requests_per_second:>9.2f}{rate.audio_seconds_per_second:>11.1f}{rate.most_at_once:>9}"
            f"{rate.drain_seconds:>9.2f}"
        )
    notes = [note for rate in result.rates for note in _notes(rate)]
    return [*lines, *([""] if notes else []), *notes]


def _notes(rate: "RateResult") -> list[str]:
    notes = [f"{count} x {error}: {rate.examples[error] or '-'}" for error, count in rate.errors.items()]
    if rate.clips_with_different_texts:
        notes.append(f"{count(rate.clips_with_different_texts, 'clip')} got answers with different texts")
    if rate.client_delay > 0.1:
        notes.append(f"this client sent requests up to {rate.client_delay:.2f} s late; it is too slow for the rate")
    return [f"{rate.rate:g} requests/s: {note}" for note in notes]


def _value(percentiles: "Percentiles | None", name: str) -> str:
    return "-" if percentiles is None else f"{getattr(percentiles, name):.3f}"


def _rate(text: str) -> float:
    """A number above 0. Raises ArgumentTypeError for another text."""
    try:
        rate = float(text)
    except ValueError:
        rate = math.nan
    if not 0 < rate < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0")
    return rate


def _field(text: str) -> tuple[str, str]:
    """`KEY=VALUE`. Raises ArgumentTypeError for another form, and for fields that other options set."""
    key, equals, value = text.partition("=")
    if not key or not equals:
        raise argparse.ArgumentTypeError(f"{text!r} is not KEY=VALUE")
    if key in ("file", "model", "stream"):
        raise argparse.ArgumentTypeError(f"{key} cannot be set with --form")
    return key, value
