"""What `finetune bench-serve` measures: requests, percentiles, and one result for each rate."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

VERSION = 2


@dataclass(frozen=True)
class Outcome:
    """One request.

    Attributes:
        clip: number of the clip.
        audio_seconds: its length.
        planned: when the request should be sent, in seconds after the start.
        sent: when it was sent.
        ended: when its answer was complete, or it failed.
        text: the text of the answer; None if it failed.
        error: why it failed, such as `HTTP 429`; else "".
        detail: the server's message.
        first_text: when the first text of a stream came.
        variant: requests with equal `clip` and `variant` had equal audio.
    """

    clip: int
    audio_seconds: float
    planned: float
    sent: float
    ended: float
    text: str | None
    error: str = ""
    detail: str = ""
    first_text: float | None = None
    variant: int = 0

    @property
    def latency(self) -> float:
        """Seconds from the planned time, so that a client that sends late does not hide a slow server."""
        return self.ended - self.planned


@dataclass(frozen=True)
class Percentiles:
    """Mean, percentiles (linear interpolation) and maximum."""

    mean: float
    p50: float
    p90: float
    p95: float
    p99: float
    max: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Percentiles | None":
        """None without values."""
        if not values:
            return None
        p50, p90, p95, p99 = np.percentile(values, [50, 90, 95, 99])
        return cls(float(np.mean(values)), float(p50), float(p90), float(p95), float(p99), max(values))


@dataclass(frozen=True)
class RateResult:
    """The measurements at one rate. Times are seconds; percentiles are over requests that got a text.

    Attributes:
        rate: planned requests a second.
        completed: requests that got a text.
        errors: number of failed requests by reason.
        examples: a message of the server for each reason.
        seconds: from the start to the last answer.
        drain_seconds: from the last arrival to the last answer; it grows with the rate if a queue grows.
        latency: from the planned time of a request to its complete answer.
        first_text: to the first text of a stream; None without `--stream`.
        real_time_factor: latency divided by the length of the audio, of each request.
        requests_per_second: completed requests divided by `seconds`.
        audio_seconds_per_second: their audio, in the same way.
        most_at_once: most requests without an answer at a time.
        client_delay: longest time that this client sent a request late; above 0.1, a faster client is needed.
        clips_with_different_texts: clips with several answers that are not all the same; None if no clip was sent twice
            without a change.
    """

    rate: float
    requests: int
    completed: int
    errors: dict[str, int]
    examples: dict[str, str]
    seconds: float
    drain_seconds: float
    latency: Percentiles | None
    first_text: Percentiles | None
    real_time_factor: Percentiles | None
    requests_per_second: float
    audio_seconds_per_second: float
    most_at_once: int
    client_delay: float
    clips_with_different_texts: int | None


@dataclass(frozen=True)
class LoadResult:
    """The result file of `finetune bench-serve`."""

    version: int
    url: str
    model: str
    form: Mapping[str, str]
    stream: bool
    clips: int
    clip_seconds: float
    seed: int
    repeat: bool
    rates: tuple[RateResult, ...]

    @property
    def failed(self) -> int:
        """Failed requests at all rates."""
        return sum(rate.requests - rate.completed for rate in self.rates)


def summarize(rate: float, outcomes: Sequence[Outcome]) -> RateResult:
    """The measurements of one rate; there is at least one outcome."""
    completed = [item for item in outcomes if item.text is not None]
    failed = [item for item in outcomes if item.text is None]
    end = max(item.ended for item in outcomes)
    texts = defaultdict[tuple[int, int], list[str | None]](list)
    for item in completed:
        texts[item.clip, item.variant].append(item.text)
    repeated = [answers for answers in texts.values() if len(answers) > 1]
    return RateResult(
        rate=rate,
        requests=len(outcomes),
        completed=len(completed),
        errors=dict(Counter(item.error for item in failed).most_common()),
        examples={item.error: item.detail for item in reversed(failed)},
        seconds=end,
        drain_seconds=end - max(item.planned for item in outcomes),
        latency=Percentiles.of([item.latency for item in completed]),
        first_text=Percentiles.of([x.first_text - x.planned for x in completed if x.first_text is not None]),
        real_time_factor=Percentiles.of([item.latency / item.audio_seconds for item in completed]),
        requests_per_second=len(completed) / end,
        audio_seconds_per_second=sum(item.audio_seconds for item in completed) / end,
        most_at_once=_most_at_once(outcomes),
        client_delay=max(item.sent - item.planned for item in outcomes),
        clips_with_different_texts=sum(len({*answers}) > 1 for answers in repeated) if repeated else None,
    )


def _most_at_once(outcomes: Sequence[Outcome]) -> int:
    """An answer at the time at which another request is sent comes first."""
    changes = sorted([*((item.sent, 1) for item in outcomes), *((item.ended, -1) for item in outcomes)])
    return int(np.cumsum([change for _, change in changes]).max())
