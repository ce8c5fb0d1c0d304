"""Loads a server for an hour at the highest rate that it keeps up with; fails if its memory grows or a request is lost.

    finetune serve runs/quickstart/export --port 8000 & SERVER=$!
    python scripts/soak_server.py http://127.0.0.1:8000/v1 data/vocabulary/test.jsonl --pid $SERVER --minutes 60

The load comes in slices: open, with Poisson arrivals. A server keeps up with a slice if its queue is empty within
`--drain` seconds after the last arrival, and if it refuses nothing (HTTP 429, counted apart). The rate rises by half
with each slice until the server does not keep up; these slices do not count. Then it falls by 20 % after such a slice
and rises by 5 % after another. So it follows the server, also if other work shares the machine. Resident memory is read
from /proc every `--every` seconds. Growth is that of the mean of the last tenth of the readings against the mean of the
first tenth.

Exit codes: 0, 1 (growth above `--limit`, a request failed, a clip got different texts, or the process has ended), 2.
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

from finetune.core.errors import FinetuneError, ModelError
from finetune.core.files import write_json
from finetune.core.options import LoadOptions
from finetune.serving.bench import load_uploads, send_at
from finetune.serving.bench_client import BenchClient
from finetune.serving.bench_plan import poisson_arrivals
from finetune.serving.bench_result import Outcome, RateResult, summarize
from finetune.serving.bench_uploads import Uploads

REFUSED = "HTTP 429"
WARM_UP = 20  # most slices


@dataclass
class Soak:
    """What was measured. `readings` are bytes of resident memory; `rates` the planned requests a second of slices."""

    requests: int = 0
    completed: int = 0
    refused: int = 0
    errors: Counter[str] = field(default_factory=Counter)
    examples: dict[str, str] = field(default_factory=dict)
    texts: dict[int, set[str]] = field(default_factory=dict)
    rates: list[float] = field(default_factory=list)
    readings: list[int] = field(default_factory=list)
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
        """Clips with several answers that are not all the same."""
        return sum(len(found) > 1 for found in self.texts.values())

    def failures(self, limit: float) -> list[str]:
        """What makes the soak fail."""
        found = [f"{count} x {error}: {self.examples[error]}" for error, count in self.errors.items()]
        if (lost := self.requests - self.completed - self.refused - self.errors.total()) > 0:
            found.append(f"{lost} requests have no outcome")
        if self.different:
            found.append(f"{self.different} clips got answers with different texts")
        if not self.completed:
            found.append("no request was answered")
        if growth(self.readings) > limit:
            found.append(f"memory grew by {growth(self.readings):.1%}, more than {limit:.1%}")
        return found


def growth(readings: Sequence[int]) -> float:
    """Growth from the mean of the first tenth to that of the last tenth, as a fraction."""
    tenth = max(1, len(readings) // 10)
    return sum(readings[-tenth:]) / max(1, sum(readings[:tenth])) - 1 if readings else 0.0


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


async def watch(pid: int, every: float, readings: list[int]) -> None:
    """Reads the memory of a process until it is cancelled."""
    while True:
        readings.append(resident(pid))
        await asyncio.sleep(every)


async def soak(args: argparse.Namespace, uploads: Uploads) -> Soak:
    """Runs slices until the time is over. Raises ModelError if the process has ended."""
    client, result, rate = BenchClient(args.url, {}, False, args.timeout), Soak(), args.rate
    watcher: asyncio.Task[None] | None = None
    started = time.monotonic()
    try:
        client.form["model"] = await client.first_model()
        for number in count():
            arrivals = poisson_arrivals(rate, max(1, round(rate * args.slice)), len(uploads.clips), args.seed + number)
            outcomes = await send_at(client, uploads, arrivals)
            figures = summarize(rate, outcomes)
            kept_up = figures.drain_seconds <= args.drain and REFUSED not in figures.errors
            if watcher:
                result.add(figures, outcomes)
                if watcher.done():
                    watcher.result()
                if time.monotonic() >= started + 60 * args.minutes:
                    break
            elif not kept_up or number + 1 == WARM_UP:
                watcher, started = asyncio.create_task(watch(args.pid, args.every, result.readings)), time.monotonic()
            rate *= (1.05 if watcher else 1.5) if kept_up else 0.8
        result.seconds = time.monotonic() - started
        result.readings.append(resident(args.pid))
    finally:
        if watcher:
            watcher.cancel()
        await client.close()
    return result


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url")
    parser.add_argument("sources", nargs="+", type=Path)
    parser.add_argument("--pid", type=int, required=True, help="process of the server")
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--rate", type=float, default=2.0, help="requests a second of the first slice (default: 2)")
    parser.add_argument("--slice", type=float, default=20.0, help="seconds of arrivals in a slice")
    parser.add_argument("--drain", type=float, default=5.0, help="seconds in which a queue must be empty")
    parser.add_argument("--every", type=float, default=5.0, help="seconds between two readings of the memory")
    parser.add_argument("--limit", type=float, default=0.05, help="most growth of the memory, as a fraction")
    parser.add_argument("--timeout", type=float, default=LoadOptions.timeout)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args(arguments)
    if min(args.minutes, args.rate, args.slice, args.every, args.timeout) <= 0:
        parser.error("--minutes, --rate, --slice, --every and --timeout must be above 0")
    try:
        resident(args.pid)
        result = asyncio.run(soak(args, load_uploads(args.sources, LoadOptions(seed=args.seed, repeat=True))))
    except FinetuneError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    failures = result.failures(args.limit)
    rates, answered = result.rates, result.completed / result.seconds
    print(
        f"{result.seconds / 60:.1f} min: {result.completed} of {result.requests} requests answered, "
        f"{answered:.1f} a second; {result.refused} refused (429); rates {min(rates):.1f} to {max(rates):.1f}\n"
        f"memory: {result.readings[0] / 1e6:.0f} MB at first, {max(result.readings) / 1e6:.0f} MB at most, "
        f"{growth(result.readings):+.1%} from the first to the last tenth of {len(result.readings)} readings"
    )
    if args.json:
        write_json(
            args.json, {**asdict(result), "texts": None, "growth": growth(result.readings), "failures": failures}
        )
    for failure in failures:
        print(f"failed: {failure}")
    return int(bool(failures))


if __name__ == "__main__":
    sys.exit(main())
