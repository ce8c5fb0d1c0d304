"""A web server on this machine with delays and faults, for tests and measurements of remote files.

python scripts/bench/loopback.py FOLDER DELAY       # prints its URL and serves until it is stopped
"""

import re
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any


class Loopback:
    """What a server does, and what it was asked.

    Attributes:
        url: of the folder.
        delay: seconds before each answer.
        fail_every: each request of this number gets status 503, in turn with a closed connection.
        ranges: whether the server supports the header Range.
        etag: of all files.
        requests: path and Range of each request.
        credentials: the headers Authorization.
        connections: number of connections.
        most_active: largest number of requests at a time.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.url = folder, ""
        self.delay, self.fail_every, self.ranges, self.etag = 0.0, 0, True, "1"
        self.requests: list[tuple[str, str]] = []
        self.credentials = set[str]()
        self.connections = self.active = self.most_active = 0


def _handler(state: Loopback) -> type[BaseHTTPRequestHandler]:
    """The class that answers as `state` says, and records the requests in it."""
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def setup(self) -> None:
            super().setup()
            with lock:
                state.connections += 1

        def do_GET(self) -> None:
            with lock:
                state.active += 1
                state.most_active = max(state.most_active, state.active)
                state.requests.append((self.path, self.headers.get("Range", "")))
                state.credentials.add(self.headers.get("Authorization", ""))
                number = len(state.requests)
            time.sleep(state.delay)
            with lock:
                state.active -= 1
            if state.fail_every and number % state.fail_every == 0:
                if number // state.fail_every % 2:
                    self._answer(503, b"")
                else:
                    self.close_connection = True
                return
            path = state.folder / self.path.lstrip("/")
            if not path.is_file():
                self._answer(404, b"")
                return
            size = path.stat().st_size
            asked = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
            if asked is None or not state.ranges:
                self._answer(200, path.read_bytes())
                return
            start, stop = int(asked[1]), min(int(asked[2]) + 1, size)
            if start >= size:
                self._answer(416, b"", {"Content-Range": f"bytes */{size}"})
                return
            with open(path, "rb") as file:
                file.seek(start)
                content = file.read(stop - start)
            self._answer(206, content, {"Content-Range": f"bytes {start}-{stop - 1}/{size}"})

        def _answer(self, status: int, content: bytes, headers: dict[str, str] | None = None) -> None:
            self.send_response(status)
            for name, value in {"Content-Length": str(len(content)), "ETag": state.etag, **(headers or {})}.items():
                self.send_header(name, value)
            self.end_headers()
            with suppress(BrokenPipeError, ConnectionResetError):
                self.wfile.write(content)

        def log_message(self, *_: Any) -> None:
            pass

    return Handler


@contextmanager
def serve(folder: Path) -> Iterator[Loopback]:
    """Serves the files of a folder."""
    state = Loopback(folder)
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(state))
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    state.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()


if __name__ == "__main__":
    with serve(Path(sys.argv[1])) as served:
        served.delay = float(sys.argv[2])
        print(served.url, flush=True)
        threading.Event().wait()
