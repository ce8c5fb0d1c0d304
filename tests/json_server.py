"""A server on a local socket that answers POST requests with what a test says, and records them."""

from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread


class JsonServer:
    """`respond` gets the number of a request and returns status and body; `requests` has path and body."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, bytes]] = []
        self.respond: Callable[[int], tuple[int, bytes]] = lambda _: (200, b"{}")
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                outer.requests.append((self.path, self.rfile.read(int(self.headers["Content-Length"]))))
                code, body = outer.respond(len(outer.requests) - 1)
                self.send_response(code)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        Thread(target=self.http.serve_forever, args=(0.01,), daemon=True).start()
        self.url = f"http://127.0.0.1:{self.http.server_port}/v1"

    def close(self) -> None:
        self.http.shutdown()
        self.http.server_close()
