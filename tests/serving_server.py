"""A server of `finetune serve` in a thread of the test process."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import httpx
import openai

from finetune.core.serve_options import ServeOptions
from finetune.serving.app import create_app
from finetune.serving.models import Models
from finetune.serving.server import Server, listen, make_server


@dataclass
class Running:
    """A server that runs."""

    url: str
    app: Any
    server: Server
    thread: threading.Thread

    def client(self, key: str = "none", **options: Any) -> openai.OpenAI:
        return openai.OpenAI(base_url=f"{self.url}/v1", api_key=key, max_retries=0, **options)

    def post(self, path: str = "/v1/audio/transcriptions", **arguments: Any) -> httpx.Response:
        return httpx.post(self.url + path, timeout=60, **arguments)

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])


@contextmanager
def running(models: Models, **options: Any) -> Iterator[Running]:
    """Runs a server with these options; it drains when the block ends."""
    chosen = ServeOptions(port=0, **options)
    app, sock = create_app(models, chosen), listen(chosen)
    server = make_server(app, chosen)
    thread = threading.Thread(target=server.run, args=([sock],), daemon=True)
    thread.start()
    url = f"http://127.0.0.1:{sock.getsockname()[1]}"
    while not server.started:
        assert thread.is_alive()
    try:
        yield Running(url, app, server, thread)
    finally:
        server.should_exit = True
        thread.join(60)
        assert not thread.is_alive()
