"""Measures a server under an open-loop load: requests arrive at random times and do not wait for answers."""

import asyncio
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from finetune.core.errors import ModelError
from finetune.core.options import LoadOptions
from finetune.serving.bench_client import BenchClient
from finetune.serving.bench_plan import Arrival, Clip, load_clips, poisson_arrivals
from finetune.serving.bench_result import VERSION, LoadResult, Outcome, RateResult, summarize


def measure_server(
    url: str,
    sources: Sequence[Path],
    rates: Sequence[float],
    options: LoadOptions,
    model: str | None = None,
    form: Mapping[str, str] | None = None,
    stream: bool = False,
) -> LoadResult:
    """Sends the load of each rate, one rate after another, and summarizes the answers.

    Args:
        url: address of an OpenAI-compatible server.
        sources: audio files and manifests.
        rates: mean requests a second.
        options: number of requests, timeout, seed.
        model: the default is the first model that the server lists.
        form: other fields of the request, such as `language`.
        stream: ask for a stream, and measure the time to its first text.

    Raises:
        DataError: see `load_clips`.
        ModelError: the server cannot be reached, or a request of the warm-up fails.
    """
    clips = load_clips(sources, options.clips, options.seed)
    return asyncio.run(_measure(url, clips, rates, options, model, dict(form or {}), stream))


async def _measure(
    url: str,
    clips: list[Clip],
    rates: Sequence[float],
    options: LoadOptions,
    model: str | None,
    form: dict[str, str],
    stream: bool,
) -> LoadResult:
    client = BenchClient(url, form, stream, options.timeout)
    try:
        name = model or await client.first_model()
        client.form["model"] = name
        await _warm_up(client, clips, options.warmup)
        results = list[RateResult]()
        for rate in rates:
            arrivals = poisson_arrivals(rate, options.requests, len(clips), options.seed)
            results.append(summarize(rate, await send_at(client, clips, arrivals)))
    finally:
        await client.close()
    seconds = sum(clip.seconds for clip in clips)
    return LoadResult(VERSION, client.url, name, form, stream, len(clips), seconds, options.seed, tuple(results))


async def _warm_up(client: BenchClient, clips: Sequence[Clip], count: int) -> None:
    """Sends clips one after another. Raises ModelError for the first that fails, because the others would fail too."""
    for number in range(count):
        clip = clips[number % len(clips)]
        outcome = await client.send(clip, number % len(clips), time.perf_counter(), 0.0)
        if outcome.text is None:
            raise ModelError(f"{client.url}: {outcome.error} for {clip.name}: {outcome.detail}; nothing was measured")


async def send_at(client: BenchClient, clips: Sequence[Clip], arrivals: Sequence[Arrival]) -> list[Outcome]:
    """Sends each request at its time, without waiting for answers, and returns all outcomes in their order."""
    start, tasks = time.perf_counter(), list[asyncio.Task[Outcome]]()
    for arrival in arrivals:
        await asyncio.sleep(max(0.0, start + arrival.at - time.perf_counter()))
        request = client.send(clips[arrival.clip], arrival.clip, start, arrival.at)
        tasks.append(asyncio.create_task(request))
    return await asyncio.gather(*tasks)
