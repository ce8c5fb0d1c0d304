"""Figures of a server for Prometheus."""

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Metrics:
    """Counters and histograms of one server; none has a text or a name of a file."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._requests = Counter(
            "finetune_requests",
            "Requests by endpoint, model and status",
            ["endpoint", "model", "status"],
            registry=self.registry,
        )
        self._latency = Histogram(
            "finetune_request_seconds",
            "Time from the request to its last byte",
            ["endpoint"],
            buckets=SECONDS,
            registry=self.registry,
        )
        self._audio = Counter("finetune_audio_seconds", "Audio of finished requests", ["model"], registry=self.registry)
        self._batch = Histogram(
            "finetune_batch_windows",
            "Windows in a batch",
            ["model"],
            buckets=(1, 2, 4, 8, 16, 32, 64, 128),
            registry=self.registry,
        )
        self._batch_seconds = Counter(
            "finetune_batch_seconds", "Time in which batches were computed", ["model"], registry=self.registry
        )
        self._batch_audio = Counter(
            "finetune_batch_audio_seconds", "Audio of batches", ["model"], registry=self.registry
        )
        self.speed = 0.0  # seconds of audio that the last batches transcribed in a second

    def gauge(self, name: str, text: str, value: Callable[[], float]) -> None:
        """Adds a value that is read when the figures are."""
        Gauge(name, text, registry=self.registry).set_function(value)

    def batch(self, model: str, windows: int, audio: float, seconds: float) -> None:
        """Counts a batch."""
        self._batch.labels(model).observe(windows)
        self._batch_seconds.labels(model).inc(seconds)
        self._batch_audio.labels(model).inc(audio)
        speed = audio / max(seconds, 1e-6)
        self.speed = speed if not self.speed else 0.8 * self.speed + 0.2 * speed

    def request(self, endpoint: str, model: str, status: int, seconds: float, audio: float) -> None:
        """Counts a request that has ended."""
        self._requests.labels(endpoint, model, str(status)).inc()
        self._latency.labels(endpoint).observe(seconds)
        if status == 200:
            self._audio.labels(model).inc(audio)

    def text(self) -> bytes:
        return generate_latest(self.registry)
