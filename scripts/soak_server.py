"""Loads a server for an hour at the highest rate that it keeps up with; fails if its memory grows or a request is lost.

    finetune serve runs/quickstart/export --port 8000 & SERVER=$!
    python scripts/soak_server.py http://127.0.0.1:8000/v1 data/vocabulary/test.jsonl --pid $SERVER --json soak.json

The requests differ: clips alone and joined up to `--longest`, as WAV, FLAC, Ogg and MP3; every response format and
streams; with and without `--keywords`; for every model that the server lists, so also for its adapters.

The load comes in slices: open, with Poisson arrivals. A server keeps up with a slice if its queue is empty within
`--drain` seconds after the last arrival, and if it refuses nothing (HTTP 429, counted apart). Without `--rate` the rate
starts at `--first` and rises by half with each slice until the server does not keep up; these slices do not count. Then
it falls by 20 % after such a slice and rises by 5 % after another. So it follows the server, also if other work shares
the machine. With `--rate` it stays.

Resident memory is read from /proc every `--every` seconds. The first tenth of the readings is the warm-up: growth is
that of the mean of the last tenth against the mean of the second tenth. `--json` is written each minute, so a soak that
is cut leaves what it has measured, with `complete: false`.

Exit codes: 0, 1 (growth above `--limit`, a request failed, a request got different texts, or the process has ended), 2.
"""

import argparse
import asyncio
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

from finetune.core.errors import FinetuneError, ModelError
from finetune.core.files import write_json
from finetune.core.keyword_list import parse_keywords
from finetune.core.serve_options import LoadOptions
from finetune.serving.bench import send_at
from finetune.serving.bench_client import BenchClient
from finetune.serving.bench_plan import Clip, load_clips, poisson_arrivals
from finetune.serving.bench_result import Outcome, RateResult, summarize
from finetune.serving.bench_uploads import Uploads
from soak_requests import soak_requests

REFUSED = "HTTP 429"
RAMP = 20  # most slices before the soak
MINUTE = 60.0  # seconds between two states in the file
KEYWORDS = "metoprolol,Berlin,invoice,Okonkwo,stent,quarterly,Saoirse"


@dataclass(frozen=True)
class State:
    """What was measured in the first `seconds`; `resident` is in bytes."""

    seconds: float
    resident: int
    requests: int
    completed: int
    refused: int
    failed: int


@dataclass
class Soak:
    """What was measured.

    Attributes:
        ramp: rates before the soak, in requests a second, and whether the server kept up.
        rates: planned rates of the slices.
        readings: bytes of resident memory.
        states: one for each minute.
    """

    requests: int = 0
    completed: int = 0
    refused: int = 0
    errors: Counter[str] = field(default_factory=Counter)
    examples: dict[str, str] = field(default_factory=dict)
    texts: dict[int, set[str]] = field(default_factory=dict)
    ramp: list[tuple[float, bool]] = field(default_factory=list)
    rates: list[float] = field(default_factory=list)
    readings: list[int] = field(default_factory=list)
    states: list[State] = field(default_factory=list)
    seconds: float = 0.0

    def add(self, figures: RateResult, outcomes: Sequence[Outcome]) -> None:
        """Adds a slice."""
        self.rates.append(figures.rate)
        self.requests += figures.requests
        self.completed += figures.completed
        for error, number in figures.errors.items():
            if error == REFUSED:
                self.refused += number
            else:
                self.errors[error] += number
                self.examples[error] = figures.examples[error]
        for outcome in outcomes:
            if outcome.text is not None:
                self.texts.setdefault(outcome.clip, set()).add(outcome.text)

    @property
    def different(self) -> int:
        """Requests with several answers that are not all the same."""
        return sum(len(found) > 1 for found in self.texts.values())

    def failures(self, limit: float) -> list[str]:
        """What makes the soak fail."""
        found = [f"{count} x {error}: {self.examples[error]}" for error, count in self.errors.items()]
        if (lost := self.requests - self.completed - self.refused - self.errors.total()) > 0:
            found.append(f"{lost} requests have no outcome")
        if self.different:
            found.append(f"{self.different} requests got answers with different texts")
        if not self.completed:
            found.append("no request was answered")
        if growth(self.readings) > limit:
            found.append(f"memory grew by {growth(self.readings):.1%}, more than {limit:.1%}")
        return found

    def add_state(self) -> None:
        counts = (self.requests, self.completed, self.refused, self.errors.total())
        self.states.append(State(round(self.seconds, 1), self.readings[-1], *counts))

    def to_dict(self, args: argparse.Namespace, complete: bool) -> dict[str, Any]:
        """What the file has."""
        names = ("url", "rate", "first", "slice", "drain", "longest", "every", "seed")
        found = {**asdict(self), "errors": dict(self.errors), "texts": None, "different": self.different}
        return {
            "complete": complete,
            "settings": {name: getattr(args, name) for name in names},
            **found,
            "growth": growth(self.readings),
            "failures": self.failures(args.limit),
        }


def growth(readings: Sequence[int]) -> float:
    """Growth from the mean of the second tenth to that of the last tenth, as a fraction; the first is the warm-up."""
    tenth = max(1, len(readings) // 10)
    first = readings[tenth : 2 * tenth]
    return sum(readings[-tenth:]) / sum(first) - 1 if first else 0.0


def resident(pid: int) -> int:
    """Bytes of resident memory of a process. Raises ModelError if it has ended."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines()
    except OSError as error:
        raise ModelError(f"process {pid}: has ended, or does not exist") from error
    for line in lines:
        if line.startswith("VmRSS:"):
            return 1024 * int(line.split()[1])
    raise ModelError(f"process {pid}: has ended")


async def watch(args: argparse.Namespace, result: Soak) -> None:
    """Reads the memory of the process, and writes the file, until it is cancelled."""
    started = time.monotonic()
    while True:
        result.seconds = time.monotonic() - started
        result.readings.append(resident(args.pid))
        if result.seconds >= args.report * (len(result.states) + 1):
            result.add_state()
            if args.json:
                write_json(args.json, result.to_dict(args, complete=False))
        await asyncio.sleep(args.every)


async def soak(args: argparse.Namespace, clips: Sequence[Clip]) -> Soak:
    """Runs slices until the time is over, but at least two. Raises ModelError if the process has ended."""
    client, result, rate = BenchClient(args.url, {}, False, args.timeout), Soak(), args.rate or args.first
    watcher: asyncio.Task[None] | None = None
    try:
        models, words = await client.models(), parse_keywords(args.keywords)
        requests = soak_requests(clips, models, words, args.longest, args.requests, args.seed)
        uploads = Uploads(requests, args.seed, repeat=True)
        if args.rate:
            watcher = asyncio.create_task(watch(args, result))
        for number in count():
            arrivals = poisson_arrivals(rate, max(1, round(rate * args.slice)), len(requests), args.seed + number)
            outcomes = await send_at(client, uploads, arrivals)
            figures = summarize(rate, outcomes)
            kept_up = figures.drain_seconds <= args.drain and REFUSED not in figures.errors
            if watcher:
                result.add(figures, outcomes)
                if watcher.done():
                    watcher.result()
                if result.seconds >= 60 * args.minutes and len(result.rates) > 1:
                    break
            else:
                result.ramp.append((rate, kept_up))
                if not kept_up or len(result.ramp) == RAMP:
                    watcher = asyncio.create_task(watch(args, result))
            if not args.rate:
                rate *= (1.05 if watcher else 1.5) if kept_up else 0.8
        result.readings.append(resident(args.pid))
    finally:
        if watcher:
            watcher.cancel()
        await client.close()
    return result


def parse_args(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url")
    parser.add_argument("sources", nargs="+", type=Path)
    parser.add_argument("--pid", type=int, required=True, help="process of the server")
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--rate", type=float, help="requests a second; the default follows the server")
    parser.add_argument("--first", type=float, default=1.0, help="requests a second of the first slice (default: 1)")
    parser.add_argument("--slice", type=float, default=20.0, help="seconds of arrivals in a slice")
    parser.add_argument("--drain", type=float, default=5.0, help="seconds in which a queue must be empty")
    parser.add_argument("--requests", type=int, default=200, help="requests that differ (default: 200)")
    parser.add_argument("--longest", type=float, default=20.0, help="seconds of joined clips")
    parser.add_argument("--keywords", default=KEYWORDS, metavar="A,B", help="of some requests; '' for none")
    parser.add_argument("--every", type=float, default=5.0, help="seconds between two readings of the memory")
    parser.add_argument("--report", type=float, default=MINUTE, help="seconds between two states of the file")
    parser.add_argument("--limit", type=float, default=0.05, help="most growth of the memory, as a fraction")
    parser.add_argument("--timeout", type=float, default=LoadOptions.timeout)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args(arguments)
    above_0 = (args.requests, args.minutes, args.first, args.slice, args.every, args.report, args.timeout)
    if min(above_0) <= 0 or (args.rate is not None and args.rate <= 0):
        parser.error("--requests, --minutes, --rate, --first, --slice, --every, --report and --timeout must be above 0")
    return args


def main(arguments: Sequence[str] | None = None) -> int:
    args = parse_args(arguments)
    try:
        resident(args.pid)
        result = asyncio.run(soak(args, load_clips(args.sources, LoadOptions.clips, args.seed)))
    except FinetuneError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    failures = result.failures(args.limit)
    rates, answered = result.rates, result.completed / result.seconds
    kept = [rate for rate, kept_up in result.ramp if kept_up]
    print(
        f"{result.seconds / 60:.1f} min: {result.completed} of {result.requests} requests answered, "
        f"{answered:.1f} a second; {result.refused} refused (429); rates {min(rates):.1f} to {max(rates):.1f}, "
        f"the ramp kept up with {f'{max(kept):.1f}' if kept else 'none'}\n"
        f"memory: {result.readings[0] / 1e6:.0f} MB at first, {max(result.readings) / 1e6:.0f} MB at most, "
        f"{growth(result.readings):+.1%} from the second to the last tenth of {len(result.readings)} readings"
    )
    if args.json:
        write_json(args.json, result.to_dict(args, complete=True))
    for failure in failures:
        print(f"failed: {failure}")
    return int(bool(failures))


if __name__ == "__main__":
    sys.exit(main())
