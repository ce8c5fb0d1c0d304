"""`finetune bench-serve`: arrivals, measurements, and servers that are slow, down or answer errors."""

import json
import socket
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from statistics import mean, pvariance

import numpy as np
import pytest
import soundfile
from command import Command, noise
from transcription_server import Answer, Request, TranscriptionServer

from finetune.core.errors import DataError
from finetune.data.audio import load_audio
from finetune.data.audio_source import Content
from finetune.data.manifest import Utterance, write_manifest
from finetune.serving.bench_plan import load_clips, poisson_arrivals
from finetune.serving.bench_result import Outcome, Percentiles, summarize
from finetune.serving.bench_uploads import Uploads


@pytest.fixture
def server() -> Iterator[TranscriptionServer]:
    server = TranscriptionServer()
    yield server
    server.close()


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    return noise(tmp_path / "clip.wav", 2.0)


# The load


def test_arrivals_are_a_poisson_process_of_the_rate() -> None:
    times = [0.0, *(arrival.at for arrival in poisson_arrivals(5.0, 4000, 3, seed=1))]
    gaps = [later - earlier for earlier, later in pairwise(times)]
    assert mean(gaps) == pytest.approx(0.2, rel=0.05)
    assert pvariance(gaps) == pytest.approx(0.04, rel=0.15), "exponential: the variance is the square of the mean"
    assert np.corrcoef(gaps[:-1], gaps[1:])[0, 1] == pytest.approx(0, abs=0.05), "independent"


def test_a_seed_gives_the_same_load_and_rates_differ_in_time_only() -> None:
    slow, fast = poisson_arrivals(1.0, 50, 9, seed=3), poisson_arrivals(4.0, 50, 9, seed=3)
    assert slow == poisson_arrivals(1.0, 50, 9, seed=3) != poisson_arrivals(1.0, 50, 9, seed=4)
    assert [item.clip for item in slow] == [item.clip for item in fast]
    assert [item.at for item in slow] == pytest.approx([4 * item.at for item in fast])
    rounds = [[item.clip for item in slow[start : start + 9]] for start in range(0, 45, 9)]
    assert all(sorted(order) == [*range(9)] for order in rounds) and len({*map(tuple, rounds)}) > 1


def test_files_are_sent_as_they_are_and_segments_as_wav(clip: Path, tmp_path: Path) -> None:
    manifest = tmp_path / "rows.jsonl"
    manifest.write_text('{"audio_filepath": "clip.wav", "offset": 1.0, "duration": 0.5}\n', encoding="utf-8")
    whole, part = load_clips([clip, manifest], 10, seed=0)
    assert (whole.name, whole.content, whole.seconds) == ("clip.wav", clip.read_bytes(), 2.0)
    assert part.seconds == 0.5
    assert part.content[:4] == b"RIFF" and len(part.content) == 44 + 2 * 8000


def test_a_large_source_is_sampled_evenly(clip: Path, tmp_path: Path) -> None:
    manifest = tmp_path / "rows.jsonl"
    write_manifest(manifest, [Utterance(f"{n:02}", str(clip), 0.2, "a", offset=0.04 * n) for n in range(40)])
    chosen = [[item.name for item in load_clips([manifest], 10, seed)] for seed in range(40)]
    assert chosen[0] == [item.name for item in load_clips([manifest], 10, 0)] != chosen[1]
    for names in chosen:
        assert len(set(names)) == 10
    counts = [sum(any(f"@{n / 25:.3f}." in name for name in names) for names in chosen) for n in range(1, 40)]
    assert min(counts) > 0 and max(counts) < 25, "each is expected 10 times"


def test_a_row_that_cannot_be_used_is_named(clip: Path, tmp_path: Path) -> None:
    manifest = tmp_path / "rows.jsonl"
    manifest.write_text(json.dumps({"audio_filepath": str(clip), "offset": 7}) + "\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"rows.jsonl:1: "):
        load_clips([manifest], 10, 0)


# The uploads


def test_all_uploads_of_a_load_differ_and_have_the_same_speech(clip: Path, tmp_path: Path) -> None:
    rows = [Utterance("part", str(clip), 1.0, "a", offset=0.5), Utterance("again", str(clip), 1.0, "a", offset=0.5)]
    write_manifest(tmp_path / "rows.jsonl", rows)
    stereo = tmp_path / "stereo.flac"
    soundfile.write(stereo, np.stack([soundfile.read(clip)[0]] * 2, 1), 16_000)
    uploads = Uploads(load_clips([clip, stereo, tmp_path / "rows.jsonl"], 10, seed=0), seed=0)
    originals = [load_audio(Content(item.name, item.content)) for item in uploads.clips]
    sent = [(number, *uploads.next(number)) for _ in range(4) for number in range(4)]
    assert len({upload.content for _, upload, _ in sent}) == 16, "also those of two rows with equal audio"
    assert [upload for _, upload, variant in sent if not variant] == uploads.clips[:3], "first as they are"
    lengths = set()
    for number, upload, variant in sent:
        wave = load_audio(Content(upload.name, upload.content))
        assert upload.seconds == len(wave) / 16_000 and len(wave) == len(originals[number]) + variant
        assert not wave[:variant].any(), "silence"
        factor = np.dot(wave[variant:], originals[number]) / np.dot(originals[number], originals[number])
        assert 0.979 < factor < 1.001 and np.abs(wave[variant:] - factor * originals[number]).max() < 1e-4
        assert (factor < 0.996) == bool(variant), "no window of a long file stays the same"
        lengths.add((number, variant))
    assert len(lengths) == 16, "a clip and a variant name one audio"


def test_uploads_repeat_with_their_seed(clip: Path) -> None:
    clips = load_clips([clip], 10, seed=0)

    def upload(seed: int, repeat: bool = False) -> list[bytes]:
        uploads = Uploads(clips, seed, repeat)
        return [uploads.next(0)[0].content for _ in range(3)]

    assert upload(1) == upload(1) != upload(2)
    assert upload(1, repeat=True) == [clip.read_bytes()] * 3


# The figures


def outcome(planned: float, ended: float, text: str | None = "a", **values: object) -> Outcome:
    fields: dict[str, object] = {"clip": 0, "audio_seconds": 2.0, "sent": planned, "error": "" if text else "HTTP 500"}
    return Outcome(planned=planned, ended=ended, text=text, **{**fields, **values})  # type: ignore[arg-type]


def test_figures_of_a_rate() -> None:
    result = summarize(
        1.0,
        [
            outcome(0.0, 1.0, clip=1),
            outcome(1.0, 4.0, sent=1.5, first_text=2.5),
            outcome(2.0, 2.5, None, detail="broken"),
            outcome(3.0, 4.5, "b"),
            outcome(4.0, 10.0, clip=1),
        ],
    )
    assert (result.requests, result.completed, result.errors) == (5, 4, {"HTTP 500": 1})
    assert result.examples == {"HTTP 500": "broken"}
    assert (result.seconds, result.drain_seconds) == (10.0, 6.0)
    assert result.latency == Percentiles.of([1.0, 3.0, 1.5, 6.0]), "from the planned time, failures apart"
    assert result.real_time_factor == Percentiles.of([0.5, 1.5, 0.75, 3.0])
    assert result.first_text == Percentiles.of([1.5])
    assert (result.requests_per_second, result.audio_seconds_per_second) == (0.4, 0.8)
    assert result.most_at_once == 2, "an answer comes before a request at the same time"
    assert result.client_delay == 0.5
    assert result.clips_with_different_texts == 1


def test_texts_are_compared_where_the_audio_is_the_same() -> None:
    def different(*items: tuple[int, str]) -> int | None:
        outcomes = [outcome(0.0, 1.0, text, variant=variant) for variant, text in items]
        return summarize(1.0, outcomes).clips_with_different_texts

    assert different((0, "a"), (1, "b")) is None
    assert different((0, "a"), (1, "b"), (1, "b")) == 0
    assert different((0, "a"), (1, "b"), (1, "c")) == 1


def test_percentiles_are_interpolated() -> None:
    found = Percentiles.of([float(value) for value in range(101)])
    assert found == Percentiles(50.0, 50.0, 90.0, 95.0, 99.0, 100.0)
    assert Percentiles.of([]) is None


# The command


def test_all_rates_are_measured(finetune: Command, server: TranscriptionServer, clip: Path, tmp_path: Path) -> None:
    output = tmp_path / "new" / "load.json"
    done = finetune(
        *("bench-serve", server.url, clip, "--rate", 100, 200, "--requests", 10, "--warmup", 1, "--json", output),
        *("--form", "language=es", "--form", "keywords=a,b"),
    )
    assert done.code == 0, done.err
    assert len(server.requests) == 21
    for request in server.requests:
        assert request.path == "/v1/audio/transcriptions"
        assert request.form == {"model": ["granite"], "language": ["es"], "keywords": ["a,b"]}
        assert request.file_name == "clip.wav"
    assert server.requests[0].content == clip.read_bytes()
    assert len({request.content for request in server.requests}) == 21, "warm-up and all rates"
    written = json.loads(output.read_text(encoding="utf-8"))
    assert written["version"] == 2 and written["url"] == f"{server.url}/v1" and written["model"] == "granite"
    assert [(rate["rate"], rate["completed"]) for rate in written["rates"]] == [(100, 10), (200, 10)]
    assert written["rates"][0]["latency"]["p50"] < 2
    assert "10/10" in done.out and "granite at http://127.0.0.1" in done.out


def test_requests_do_not_wait_for_answers(finetune: Command, server: TranscriptionServer, clip: Path) -> None:
    server.respond = lambda _: Answer(delay=0.0 if len(server.requests) == 1 else 0.4)
    done = finetune("bench-serve", server.url, clip, "--rate", 200, "--requests", 12, "--warmup", 1)
    assert done.code == 0
    assert server.most_at_once >= 4


def test_errors_are_counted_by_kind(finetune: Command, server: TranscriptionServer, clip: Path) -> None:
    def respond(_: Request) -> Answer:
        number = len(server.requests)
        if number == 2:
            return Answer(429, {"error": {"message": "the queue is full\x1b[31m"}})
        if number in (3, 4):
            return Answer(500, b"<html>oops</html>", "text/html")
        return Answer(body={"nothing": 1}) if number == 5 else Answer()

    server.respond = respond
    done = finetune("bench-serve", server.url, clip, "--rate", 300, "--requests", 9, "--warmup", 1)
    assert done.code == 1
    assert "5/9" in done.out
    assert "300 requests/s: 2 x HTTP 500: <html>oops</html>" in done.out
    assert "1 x HTTP 429: the queue is full\\x1b[31m" in done.out, "nothing for the terminal"
    assert '1 x no text in the answer: {"nothing": 1}' in done.out


def test_a_timeout_counts_the_whole_answer(finetune: Command, server: TranscriptionServer, clip: Path) -> None:
    server.respond = lambda _: Answer(delay=0.0 if len(server.requests) == 1 else 1.0)
    done = finetune("bench-serve", server.url, clip, "--rate", 50, "--requests", 2, "--warmup", 1, "--timeout", 0.3)
    assert done.code == 1
    assert "2 x timeout: no complete answer after 0.3 s" in done.out
    assert "0/2" in done.out


def test_a_server_that_is_down(finetune: Command, clip: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    done = finetune("bench-serve", url, clip, "--rate", 1)
    assert done.code == 1
    assert f"{url}/v1: cannot be reached" in done.err and "start the server" in done.err
    named = finetune("bench-serve", url, clip, "--rate", 1, "--model", "granite")
    assert named.code == 1 and "nothing was measured" in named.err


def test_a_server_that_rejects_the_key(
    finetune: Command, server: TranscriptionServer, clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    server.pages["/v1/models"] = Answer(401, {"error": {"message": "wrong key"}})
    done = finetune("bench-serve", server.url, clip, "--rate", 1)
    assert done.code == 1
    assert "HTTP 401: wrong key; set OPENAI_API_KEY" in done.err and "sk-secret" not in done.err
    server.pages.clear()
    assert "name the model with --model" in finetune("bench-serve", server.url, clip, "--rate", 1).err
    finetune("bench-serve", server.url, clip, "--rate", 99, "--requests", 1, "--warmup", 1, "--model", "mine")
    assert server.requests[0].headers["authorization"] == "Bearer sk-secret"
    assert server.requests[0].form["model"] == ["mine"]


def test_a_failing_warm_up_ends_the_command(finetune: Command, server: TranscriptionServer, clip: Path) -> None:
    server.respond = lambda _: Answer(400, {"error": {"message": "no such format"}})
    done = finetune("bench-serve", server.url, clip, "--rate", 1, "--form", "response_format=xml")
    assert done.code == 1
    assert "HTTP 400 for clip.wav: no such format; nothing was measured" in done.err
    assert len(server.requests) == 1


def test_an_answer_that_comes_in_drops_is_a_timeout_too(
    finetune: Command, server: TranscriptionServer, clip: Path
) -> None:
    server.respond = lambda _: Answer() if len(server.requests) == 1 else Answer(pause=0.3)
    done = finetune("bench-serve", server.url, clip, "--rate", 50, "--requests", 2, "--warmup", 1, "--timeout", 0.4)
    assert done.code == 1 and "2 x timeout" in done.out


@pytest.mark.parametrize(
    "events",
    [
        [{"type": "transcript.text.delta", "delta": "good "}, {"type": "transcript.text.done", "text": "good day"}],
        [{"choices": [{"delta": {"content": "good "}}]}, {"choices": [{"delta": {"content": "day"}}]}],
    ],
    ids=["openai", "vllm"],
)
def test_streams_of_openai_and_vllm(
    finetune: Command, server: TranscriptionServer, clip: Path, tmp_path: Path, events: list[object]
) -> None:
    body = "".join(f"data: {json.dumps(event)}\n\n" for event in events) + "data: [DONE]\n\n"
    server.respond = lambda _: Answer(body=body.encode(), content_type="text/event-stream")
    output = tmp_path / "load.json"
    done = finetune("bench-serve", server.url, clip, "--rate", 99, "--requests", 3, "--stream", "--json", output)
    assert done.code == 0, done.out
    assert server.requests[0].form["stream"] == ["true"]
    (rate,) = json.loads(output.read_text(encoding="utf-8"))["rates"]
    assert 0 < rate["first_text"]["p50"] <= rate["latency"]["p50"]
    assert rate["clips_with_different_texts"] is None


def test_an_error_inside_a_stream_is_an_error(finetune: Command, server: TranscriptionServer, clip: Path) -> None:
    good = b'data: {"type": "transcript.text.done", "text": "hello"}\n\n'
    bad = b'data: {"type": "transcript.text.delta", "delta": "good "}\n\ndata: {"error": {"message": "no memory"}}\n\n'
    server.respond = lambda _: Answer(body=good if len(server.requests) == 1 else bad, content_type="text/event-stream")
    done = finetune("bench-serve", server.url, clip, "--rate", 99, "--requests", 3, "--warmup", 1, "--stream")
    assert done.code == 1
    assert "3 x error in the stream: no memory" in done.out


def test_different_texts_of_one_clip_are_reported(finetune: Command, server: TranscriptionServer, clip: Path) -> None:
    server.respond = lambda _: Answer(body={"text": str(len(server.requests))})
    done = finetune("bench-serve", server.url, clip, "--rate", 99, "--requests", 3, "--warmup", 1, "--repeat")
    assert {request.content for request in server.requests} == {clip.read_bytes()}
    assert done.code == 0
    assert "1 clip got answers with different texts" in done.out


@pytest.mark.parametrize("arguments", [["--rate", "0"], ["--rate", "x"], ["--rate", "1", "--form", "model=a"], []])
def test_wrong_usage(finetune: Command, clip: Path, arguments: list[str]) -> None:
    assert finetune("bench-serve", "http://127.0.0.1:1", clip, *arguments).code == 2


def test_options_out_of_range_and_wrong_addresses(finetune: Command, clip: Path) -> None:
    done = finetune("bench-serve", "http://127.0.0.1:1", clip, "--rate", 1, "--requests", 0)
    assert done.code == 2 and "requests: must be greater than or equal to 1" in done.err
    done = finetune("bench-serve", "localhost:8000", clip, "--rate", 1)
    assert done.code == 1 and "http://127.0.0.1:8000/v1" in done.err


def test_audio_that_cannot_be_read(finetune: Command, tmp_path: Path) -> None:
    text = tmp_path / "page.wav"
    text.write_text("<html>", encoding="utf-8")
    done = finetune("bench-serve", "http://127.0.0.1:1", text, "--rate", 1)
    assert done.code == 1 and "page.wav" in done.err
    soundfile.write(tmp_path / "ok.wav", np.zeros(16000), 16000)
    assert "missing.wav" in finetune("bench-serve", "http://127.0.0.1:1", tmp_path / "missing.wav", "--rate", 1).err
