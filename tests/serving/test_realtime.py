"""Live audio over a websocket."""

import asyncio
import base64
import json
import math
from typing import Any, cast

import numpy as np
import pytest
import soxr
from conftest import VOCABULARY
from serving_server import running
from starlette.websockets import WebSocket
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from finetune.core.model_limits import ModelLimits
from finetune.core.options import override
from finetune.core.serve_options import ServeOptions
from finetune.data.audio import SAMPLE_RATE, load_audio
from finetune.data.waveform import Recording
from finetune.inference.transcribe import Transcriber
from finetune.serving.audio_queue import MAX_EVENTS, Mark
from finetune.serving.engine import Engine
from finetune.serving.errors import ApiError
from finetune.serving.live_audio import LiveAudio
from finetune.serving.live_session import LiveSession
from finetune.serving.live_settings import LiveSettings
from finetune.serving.models import Models, ServedModel
from finetune.serving.realtime import Realtime
from finetune.serving.transcriptions import Gate

ITEM = "conversation.item.input_audio_transcription"
COMMITTED = "input_audio_buffer.committed"
CLIPS = sorted((VOCABULARY / "audio" / "canary").glob("*.opus"))[:2]


@pytest.fixture(scope="module")
def spoken() -> Any:
    """Two sentences with pauses, at 16 kHz."""
    pause = np.zeros(SAMPLE_RATE, np.float32)
    return np.concatenate([pause, *(part for clip in CLIPS for part in (load_audio(clip), pause))])


def append(wave: Any) -> str:
    audio = base64.b64encode((wave * 32767).astype("<i2").tobytes()).decode()
    return json.dumps({"type": "input_audio_buffer.append", "audio": audio})


def session(**settings: Any) -> str:
    """An event that changes the settings of the audio."""
    content = {"type": "transcription", "audio": {"input": settings}}
    return json.dumps({"type": "session.update", "session": content})


UPDATE = session(format={"type": "audio/pcm", "rate": 16000}, transcription={"model": "nano"})
COMMIT = json.dumps({"type": "input_audio_buffer.commit"})


def until_committed(socket: Any) -> list[dict[str, Any]]:
    """The events up to the text of the item that the commit of the client makes."""
    events: list[dict[str, Any]] = []
    item = None
    while not events or (events[-1]["type"], events[-1]["item_id"]) != (f"{ITEM}.completed", item):
        events.append(json.loads(socket.recv(60)))
        if events[-1]["type"] == COMMITTED and events[-1]["committed_by"] == "client":
            item = events[-1]["item_id"]
    return events


def check_items(events: list[dict[str, Any]]) -> None:
    """Each item is committed once, after the item before it, then gets its text; partial texts come before."""
    committed = [event for event in events if event["type"] == COMMITTED]
    items = [event["item_id"] for event in committed]
    assert len({*items}) == len(items)
    assert [event["previous_item_id"] for event in committed] == [None, *items[:-1]]
    assert len({event["event_id"] for event in events}) == len(events)
    for item in items:
        kinds = [event["type"] for event in events if event.get("item_id") == item]
        while kinds[0] == f"{ITEM}.partial":
            kinds.pop(0)
        assert kinds in ([COMMITTED, f"{ITEM}.delta", f"{ITEM}.completed"], [COMMITTED, f"{ITEM}.completed"])


def not_covered(wave: Any, utterances: list[Any]) -> Any:
    """The samples that are in none of the utterances."""
    covered = np.zeros(len(wave), bool)
    for item in utterances:
        covered[round(item.start * SAMPLE_RATE) : round(item.end * SAMPLE_RATE)] = True
    return wave[~covered]


def test_utterances_are_found_at_pauses(spoken: Any) -> None:
    live, found = LiveAudio(max_window=30.0), []
    for start in range(0, len(spoken), 1600):
        live.add(spoken[start : start + 1600])
        while (item := live.finished()) is not None:
            found.append(item)
    assert len(found) >= len(CLIPS) and live.rest() is None
    assert live.seconds == pytest.approx(len(spoken) / SAMPLE_RATE)
    edges = [edge for item in found for edge in (item.start, item.end)]
    assert edges == sorted(edges) and found[0].start == pytest.approx(0.9, abs=0.3)
    for item in found:
        first = round(item.start * SAMPLE_RATE)
        assert np.array_equal(item.samples, spoken[first : first + len(item.samples)])
    assert np.abs(not_covered(spoken, found)).max() < 0.1 * np.abs(spoken).max()


@pytest.mark.parametrize("silence", [0, SAMPLE_RATE])  # after the speech; it comes at once with it
def test_speech_without_a_pause_is_cut_at_the_longest_window(silence: int) -> None:
    rng = np.random.default_rng(1)
    live = LiveAudio(max_window=2.0)
    speech = 0.3 * rng.standard_normal(5 * SAMPLE_RATE)
    live.add(np.concatenate([np.zeros(SAMPLE_RATE), speech, np.zeros(silence)]).astype(np.float32))
    found = []
    while (item := live.finished()) is not None:
        found.append(item)
    while (item := live.rest()) is not None:
        found.append(item)
    assert all(item.end - item.start <= 2.01 for item in found)
    assert sum(item.end - item.start for item in found) == pytest.approx(5.0, abs=0.4)


@pytest.mark.parametrize("rest", [0.03, 0.05, 0.07])
def test_the_end_of_a_word_after_the_longest_window_is_kept(rest: float) -> None:
    """A click of this length is dropped, but not speech that goes on."""
    tone = 0.3 * np.sin(2 * np.pi * 200 * np.arange(round((1.9 + rest) * SAMPLE_RATE)) / SAMPLE_RATE)
    wave = np.concatenate([np.zeros(SAMPLE_RATE), tone]).astype(np.float32)
    live, found = LiveAudio(max_window=2.0), []
    for start in range(0, len(wave), 1600):
        live.add(wave[start : start + 1600])
        while (item := live.finished()) is not None:
            found.append(item)
    while (item := live.rest()) is not None:
        found.append(item)
    assert not not_covered(wave, found).any()


@pytest.mark.parametrize("chunk", [0.2, 5.0])
def test_silence_before_an_utterance_does_not_make_it_longer(chunk: float) -> None:
    """Also if much audio comes at once: the pauses of 0.3 s would end a window of a longer utterance."""
    tone = 0.1 * np.sin(2 * np.pi * 200 * np.arange(int(0.8 * SAMPLE_RATE)) / SAMPLE_RATE)
    phrase = np.concatenate([tone, np.zeros(int(0.3 * SAMPLE_RATE)), tone])
    audio = np.concatenate([np.zeros(int(2.8 * SAMPLE_RATE)), phrase, np.zeros(int(1.2 * SAMPLE_RATE))])
    wave = (audio + np.random.default_rng(0).normal(0, 1e-4, len(audio))).astype(np.float32)
    live, found = LiveAudio(max_window=3.0), []
    for start in range(0, len(wave), step := int(chunk * SAMPLE_RATE)):
        live.add(wave[start : start + step])
        while (utterance := live.finished()) is not None:
            found.append((round(utterance.start, 1), round(utterance.end, 1)))
    assert found == [(2.6, 4.9)]


def test_without_turn_detection_only_the_longest_window_ends_an_utterance(spoken: Any) -> None:
    live = LiveAudio(max_window=len(spoken) / SAMPLE_RATE, turn_detection=False)
    for start in range(0, len(spoken), 1600):
        live.add(spoken[start : start + 1600])
        assert live.finished() is None
    turn = live.rest()
    assert turn is not None and turn.start == 0 and np.array_equal(turn.samples, spoken) and live.rest() is None
    live.add(np.zeros(SAMPLE_RATE, np.float32))
    assert live.rest() is None, "silence"

    live, found = LiveAudio(max_window=2.5, turn_detection=False), []
    for start in range(0, len(spoken), 1600):
        live.add(spoken[start : start + 1600])
        while (item := live.finished()) is not None:
            found.append(item)
    assert len(found) >= 2 and all(1.2 < item.end - item.start <= 2.5 for item in found)
    assert found[0].start == pytest.approx(0.9, abs=0.3), "silence before the first sound is dropped"
    while (item := live.rest()) is not None:
        found.append(item)
    assert np.abs(not_covered(spoken, found)).max() < 1e-3, "only silence is dropped"


def test_long_silence_without_turn_detection_is_no_utterance() -> None:
    live = LiveAudio(max_window=2.0, turn_detection=False)
    for _ in range(10):
        live.add(np.zeros(SAMPLE_RATE, np.float32))
        assert live.finished() is None
    assert live.rest() is None and live.seconds == 10.0


@pytest.mark.parametrize("detection", [None, {"type": "server_vad", "threshold": 0.5}])
def test_turn_detection_of_a_session(server: Any, served: ServedModel, detection: Any) -> None:
    """Two parts with a pause between them are one item without turn detection, two with it."""
    clip, pause = load_audio(CLIPS[0]), np.zeros(round(0.8 * SAMPLE_RATE), np.float32)
    turn = np.concatenate([clip[: len(clip) // 2], pause, clip[len(clip) // 2 :]])
    with connect(f"ws://127.0.0.1:{server.port}/v1/realtime") as socket:
        socket.recv(20)
        socket.send(session(format={"type": "audio/pcm", "rate": 16000}, turn_detection=detection))
        effective = json.loads(socket.recv(20))["session"]["audio"]["input"]["turn_detection"]
        assert effective == (detection and {"type": "server_vad", "prefix_padding_ms": 200, "silence_duration_ms": 500})
        for start in range(0, len(turn), 3200):
            socket.send(append(turn[start : start + 3200]))
        socket.send(COMMIT)
        events = until_committed(socket)
    check_items(events)
    completed = [event for event in events if event["type"] == f"{ITEM}.completed"]
    if detection:
        assert len(completed) == 2
        return
    assert (completed[0]["start"], completed[0]["end"]) == (0.0, round(len(turn) / SAMPLE_RATE, 3))
    pcm = (turn * 32767).astype("<i2").astype(np.float32) / 32768
    (upload,) = Transcriber(served.network, served.options).stream([Recording("turn", pcm)])
    assert [event["transcript"] for event in completed] == [upload.text]


def test_turn_detection_stays_until_it_is_changed(served: ServedModel) -> None:
    models, settings = Models([served]), LiveSettings(served)
    for event, expected in (
        ({"audio": {"input": {"turn_detection": None}}}, False),
        ({"audio": {"input": {"format": {"rate": 16000}}}}, False),
        ({"turn_detection": {"type": "server_vad"}}, True),  # as in the old API
        ({}, True),
        ({"turn_detection": None}, False),
        ({"audio": {"input": {"turn_detection": {"type": "semantic_vad"}}}}, True),
    ):
        settings = settings.updated({"session": event}, models)
        assert settings.turn_detection == expected, event


def test_an_update_changes_only_what_it_names(served: ServedModel) -> None:
    models, settings = Models([served]), LiveSettings(served)
    stated = {"language": "de", "prompt": "write it", "keywords": ["stent"]}
    for event, expected in (
        ({"audio": {"input": {"transcription": stated}}}, ("de", "write it", ("stent",))),
        ({"audio": {"input": {"turn_detection": None}}}, ("de", "write it", ("stent",))),
        ({"audio": {"input": {"transcription": {"model": "nano"}}}}, ("de", "write it", ("stent",))),
        ({"audio": {"input": {"transcription": {"prompt": ""}}}}, ("de", "", ("stent",))),
        ({"input_audio_transcription": {"language": None, "keywords": []}}, ("", "", ())),
    ):
        settings = settings.updated({"session": event}, models)
        assert (settings.language, settings.prompt, settings.keywords) == expected, event


def test_a_session_is_told_what_an_upload_is_told(served: ServedModel, spoken: Any) -> None:
    limits = ModelLimits(instruction=served.options.instruction, keyword_prompts="untrained")
    options = override(served.options, keyword_method="prompt", max_new_tokens=3)
    model = ServedModel("nano", served.network, options, limits)
    with running(Models([model])) as server, connect(f"ws://127.0.0.1:{server.port}/v1/realtime") as socket:

        def warnings(**transcription: Any) -> list[str]:
            socket.send(session(format={"type": "audio/pcm", "rate": 16000}, transcription=transcription))
            return list(json.loads(socket.recv(20)).get("warnings", []))

        assert "warnings" not in json.loads(socket.recv(20)) and warnings() == []
        assert [text[:48] for text in warnings(prompt="write it")] == [
            "this model was trained with the instruction 'can"
        ]
        (text,) = warnings(prompt="", keywords=["stent"])
        assert text.startswith("this model was not trained with keyword prompts")
        socket.send(append(spoken))
        socket.send(COMMIT)
        completed = [event for event in until_committed(socket) if event.get("transcript")]
    assert completed
    for event in completed:
        assert event["warnings"] == ["the text of a window reached 3 tokens and was cut"]


def test_live_audio_gets_partial_and_final_texts(server: Any, served: ServedModel, spoken: Any) -> None:
    with connect(f"ws://127.0.0.1:{server.port}/v1/realtime?intent=transcription") as socket:
        assert json.loads(socket.recv(20))["type"] == "session.created"
        socket.send(UPDATE)
        assert json.loads(socket.recv(20))["session"]["audio"]["input"]["format"]["rate"] == 16000
        for start in range(0, len(spoken), 3200):
            socket.send(append(spoken[start : start + 3200]))
        socket.send(COMMIT)
        events = until_committed(socket)
    check_items(events)
    completed = [event for event in events if event["type"] == f"{ITEM}.completed" and event["transcript"]]
    assert len(completed) >= len(CLIPS)
    pcm = (spoken * 32767).astype("<i2").astype(np.float32) / 32768
    for event in completed:
        part = pcm[round(event["start"] * SAMPLE_RATE) : round(event["end"] * SAMPLE_RATE)]
        (alone,) = Transcriber(served.network, served.options).stream([Recording("part", part)])
        assert event["transcript"] == alone.text
    assert [event["delta"] for event in events if event["type"] == f"{ITEM}.delta"] == [
        event["transcript"] for event in completed
    ]


@pytest.mark.parametrize(
    "message",
    [
        "{",
        "[]",
        '{"type": "x"}',
        '{"type": "input_audio_buffer.append", "audio": "?"}',
        '{"type": "input_audio_buffer.append", "audio": "AAAA"}',
        '{"type": "input_audio_buffer.append", "audio": 3}',
        '{"type": "session.update", "session": 3}',
        '{"type": ["session.update"]}',
        "[" * 100_000,
        b'{"type": "input_audio_buffer.commit"}',
        b"\xff\x00",
        session(format={"rate": math.inf}),
        session(format={"type": "audio/pcmu"}),
        session(turn_detection=False),
        session(turn_detection="none"),
        session(transcription={"prompt": "\ud800"}),
        session(transcription={"prompt": "<|audio|>"}),
        session(transcription={"language": "日本語"}),
        session(transcription={"model": "\ud800"}),
        session(transcription={"keywords": [f"w{number}" for number in range(10_000)]}),
        session(transcription={"keywords": ["\ud800"]}),
        session(transcription={"keywords": {"a": 1}, "language": ["en"]}),
    ],
)
def test_a_wrong_event_ends_the_session_with_its_error(server: Any, message: str | bytes) -> None:
    with connect(f"ws://127.0.0.1:{server.port}/v1/realtime") as socket:
        socket.recv(20)
        socket.send(message)
        event = json.loads(socket.recv(20))
        assert event["type"] == "error" and event["error"]["message"]
        assert event["error"]["type"] == "invalid_request_error", "not of the server"
        with pytest.raises(ConnectionClosed):
            socket.recv(20)
    assert server.app.state.gate.inside == 0


def test_a_server_that_stops_finishes_what_was_said(served: ServedModel, spoken: Any) -> None:
    events = []
    with running(Models([served]), drain=60.0) as server:
        url = f"ws://127.0.0.1:{server.port}/v1/realtime"
        with connect(url) as idle, connect(url) as socket:
            json.loads(idle.recv(20))
            socket.send(UPDATE)
            socket.send(append(spoken[: len(load_audio(CLIPS[0])) + SAMPLE_RATE]))  # without a pause at its end
            while not events or events[-1]["type"] != f"{ITEM}.partial":
                events.append(json.loads(socket.recv(60)))
            server.server.should_exit = True
            with pytest.raises(ConnectionClosed):
                while True:
                    events.append(json.loads(socket.recv(60)))
            assert json.loads(idle.recv(20))["type"] == "error", "also of a session without audio"
        server.thread.join(30)
    kinds = [event["type"] for event in events]
    assert kinds[-4:] == [COMMITTED, f"{ITEM}.delta", f"{ITEM}.completed", "error"]
    assert events[-4]["committed_by"] == "server"
    assert events[-2]["transcript"] and events[-1]["error"]["code"] == "shutting_down"
    assert server.app.state.gate.inside == server.app.state.gate.sessions == 0


class SilentSocket:
    """A websocket whose client sends nothing."""

    def __init__(self) -> None:
        self.scope: dict[str, Any] = {}
        self.query_params: dict[str, str] = {}
        self.sent: list[dict[str, Any]] = []
        self.code = 0

    async def accept(self, subprotocol: str | None) -> None:
        assert subprotocol is None

    async def receive_text(self) -> str:
        await asyncio.sleep(60)
        return ""

    async def send_text(self, text: str) -> None:
        self.sent.append(json.loads(text))

    async def close(self, code: int) -> None:
        self.code = code


def session_of(model: ServedModel, socket: SilentSocket, engine: Engine) -> LiveSession:
    models, settings = Models([model]), LiveSettings(model, rate=SAMPLE_RATE)
    return LiveSession(cast(WebSocket, socket), settings, models, engine, ServeOptions())


def test_each_commit_ends_what_came_before_it(served: ServedModel, spoken: Any) -> None:
    """Also if all of it came before the session could look at it."""
    socket, engine = SilentSocket(), Engine(ServeOptions())
    session, cut = session_of(served, socket, engine), 2 * SAMPLE_RATE
    for part in (spoken[:cut], spoken[cut:]):
        session.queue.append(json.loads(append(part)))
        session.queue.mark(Mark.COMMIT)
    session.end()
    engine.start()
    asyncio.run(session.work())
    engine.close()
    check_items(socket.sent)
    by_client = [event["item_id"] for event in socket.sent if event.get("committed_by") == "client"]
    completed = {event["item_id"]: event for event in socket.sent if event["type"] == f"{ITEM}.completed"}
    assert len(by_client) == 2 and by_client[0] == "item_0" and completed["item_0"]["end"] == cut / SAMPLE_RATE
    assert sum(bool(event["transcript"]) for event in completed.values()) > 1


def test_a_commit_without_speech_makes_an_item_without_text(served: ServedModel) -> None:
    socket, engine = SilentSocket(), Engine(ServeOptions())
    session = session_of(served, socket, engine)
    session.queue.append(json.loads(append(np.zeros(SAMPLE_RATE))))
    session.queue.mark(Mark.COMMIT)
    session.end()
    asyncio.run(session.work())
    check_items(socket.sent)
    assert [event["type"] for event in socket.sent] == [COMMITTED, f"{ITEM}.completed"]
    assert socket.sent[1]["transcript"] == "" and socket.sent[1]["start"] == socket.sent[1]["end"] == 1.0


def test_clear_drops_the_audio_that_has_no_text_yet(served: ServedModel, spoken: Any) -> None:
    socket, engine = SilentSocket(), Engine(ServeOptions())
    session, cut = session_of(served, socket, engine), 2 * SAMPLE_RATE
    session.queue.append(json.loads(append(spoken[:cut])))
    session.queue.mark(Mark.CLEAR)
    session.queue.append(json.loads(append(spoken[:cut])))
    session.end()
    engine.start()
    asyncio.run(session.work())
    engine.close()
    kinds = [event["type"] for event in socket.sent]
    assert kinds[0] == "input_audio_buffer.cleared" and kinds[1] == COMMITTED
    completed = [event for event in socket.sent if event["type"] == f"{ITEM}.completed"]
    assert [event["end"] for event in completed] == [2 * cut / SAMPLE_RATE], "times count from the begin of the session"


@pytest.mark.parametrize("mark", [Mark.COMMIT, Mark.CLEAR])
def test_a_mark_comes_after_all_samples_before_it(served: ServedModel, mark: Mark) -> None:
    """At 24 kHz the resampler keeps the last samples until more audio comes."""
    session = session_of(served, SilentSocket(), Engine(ServeOptions()))
    session.queue.set_rate(24_000)
    wave = np.random.default_rng(1).uniform(-0.5, 0.5, 30_000).astype(np.float32)
    parts = []
    for _ in range(2):
        for start in range(0, len(wave), 2400):
            session.queue.append(json.loads(append(wave[start : start + 2400])))
        session.queue.mark(mark)
        samples, found = asyncio.run(session.queue.take())
        assert found is mark
        parts.append(samples)
    pcm = (wave * 32767).astype("<i2").astype(np.float32) / 32768
    for samples in parts:
        np.testing.assert_allclose(samples, soxr.resample(pcm, 24_000, SAMPLE_RATE, "HQ"), atol=1e-6)


def test_events_that_wait_are_limited(served: ServedModel) -> None:
    session = session_of(served, SilentSocket(), Engine(ServeOptions()))
    empty, sample = json.loads(append(np.zeros(0))), json.loads(append(np.zeros(1)))
    for _ in range(MAX_EVENTS + 1):
        session.queue.append(empty)
    assert not session.queue
    for _ in range(MAX_EVENTS):
        session.queue.append(sample)
    for more in (lambda: session.queue.mark(Mark.COMMIT), lambda: session.queue.append(sample)):
        with pytest.raises(ApiError, match="events wait already"):
            more()
    session.end()  # the server can still end it


def test_a_session_without_events_ends(served: ServedModel) -> None:
    socket, options, gate = SilentSocket(), ServeOptions(), Gate(1)
    realtime = Realtime(Models([served]), Engine(options), options, gate, idle=0.05)
    asyncio.run(realtime.handle(cast(WebSocket, socket)))
    assert socket.code == 1008 and socket.sent[-1]["error"]["code"] == "idle"
    assert gate.inside == gate.sessions == 0


def test_keys_and_origins_hold_for_websockets(served: ServedModel) -> None:
    with running(Models([served]), api_keys=("key",)) as server:
        url = f"ws://127.0.0.1:{server.port}/v1/realtime"
        for options in ({}, {"additional_headers": {"Authorization": "Bearer key"}, "origin": "https://evil.example"}):
            with pytest.raises(InvalidStatus):
                connect(url, **options)  # type: ignore[arg-type]
        with connect(url, additional_headers={"Authorization": "Bearer key"}) as socket:
            assert json.loads(socket.recv(20))["type"] == "session.created"
        with connect(url, subprotocols=["realtime", "openai-insecure-api-key.key"]) as socket:  # type: ignore[list-item]
            assert socket.subprotocol == "realtime"
