"""Measures a server under an open-loop load: requests arrive at random times and do not wait for answers."""

import asyncio
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from finetune.core.errors import ModelError
from finetune.core.serve_options import LoadOptions
from finetune.serving.bench_client import BenchClient
from finetune.serving.bench_plan import Arrival, load_clips, poisson_arrivals
from finetune.serving.bench_result import VERSION, LoadResult, Outcome, RateResult, summarize
from finetune.serving.bench_uploads import Uploads


def load_uploads(sources: Sequence[Path], options: LoadOptions) -> Uploads:
    """The uploads of audio files and corpora. Raises DataError, see `load_clips`."""
    return Uploads(load_clips(sources, options.clips, options.seed), options.seed, options.repeat)


def measure_server(
    url: str,
    uploads: Uploads,
    rates: Sequence[float],
    options: LoadOptions,
    model: str | None,
    form: Mapping[str, str] | None = None,
    stream: bool = False,
) -> LoadResult:
    """Sends the load of each rate, one rate after another, and summarizes the answers.

    Args:
        url: address of an OpenAI-compatible server.
        uploads: what is sent, from `load_uploads`.
        rates: mean requests a second.
        options: number of requests, timeout, seed of the arrivals.
        model: the default is the first model that the server lists.
        form: other fields of the request, such as `language`.
        stream: ask for a stream, and measure the time to its first text.

    Raises:
        DataError: the audio of a file cannot be decoded.
        ModelError: the server cannot be reached, or a request of the warm-up fails.
    """
    return asyncio.run(_measure(url, uploads, rates, options, model, dict(form or {}), stream))


async def _measure(
    url: str,
    uploads: Uploads,
    rates: Sequence[float],
    options: LoadOptions,
    model: str | None,
    form: dict[str, str],
    stream: bool,
) -> LoadResult:
    client, clips = BenchClient(url, form, stream, options.timeout), uploads.clips
    try:
        name = model or await client.first_model()
        client.form["model"] = name
        await _warm_up(client, uploads, options.warmup)
        results = list[RateResult]()
        for rate in rates:
            arrivals = poisson_arrivals(rate, options.requests, len(clips), options.seed)
            results.append(summarize(rate, await send_at(client, uploads, arrivals)))
    finally:
        await client.close()
    seconds = sum(clip.seconds for clip in clips)
    return LoadResult(
        VERSION, client.url, name, form, stream, len(clips), seconds, options.seed, uploads.repeat, tuple(results)
    )


async def _warm_up(client: BenchClient, uploads: Uploads, count: int) -> None:
    """Sends clips one after another. Raises ModelError for the first that fails, because the others would fail too."""
    for number in range(count):
        clip, _ = uploads.next(number % len(uploads.clips))
        outcome = await client.send(clip, number % len(uploads.clips), time.perf_counter(), 0.0)
        if outcome.text is None:
            raise ModelError(f"{client.url}: {outcome.error} for {clip.name}: {outcome.detail}; nothing was measured")


async def send_at(client: BenchClient, uploads: Uploads, arrivals: Sequence[Arrival]) -> list[Outcome]:
    """Sends each request at its time, without waiting for answers, and returns all outcomes in their order.

    Raises:
        DataError: the audio of a file cannot be decoded.
    """
    start, tasks = time.perf_counter(), list[asyncio.Task[Outcome]]()
    for arrival in arrivals:
        clip, variant = await asyncio.to_thread(uploads.next, arrival.clip)  # made while it is not yet sent
        await asyncio.sleep(max(0.0, start + arrival.at - time.perf_counter()))
        request = client.send(clip, arrival.clip, start, arrival.at, variant)
        tasks.append(asyncio.create_task(request))
    return await asyncio.gather(*tasks)
