"""A stand-in for a transcription server: OpenAI's routes, answers that a test chooses, and the requests that it got."""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from email.parser import BytesParser
from email.policy import HTTP
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock, Thread
from typing import Any


@dataclass
class Request:
    """A POST request: route, headers, form fields, and the name and the bytes of its file."""

    path: str
    headers: dict[str, str]
    form: dict[str, list[str]] = field(default_factory=dict)
    file_name: str = ""
    content: bytes = b""


@dataclass
class Answer:
    """A response: status, body (an object is sent as JSON), content type, seconds to wait before it, and in it."""

    status: int = 200
    body: Any = field(default_factory=lambda: {"text": "hello"})
    content_type: str = "application/json"
    delay: float = 0.0
    pause: float = 0.0
    headers: dict[str, str] = field(default_factory=dict)


class TranscriptionServer:
    """`respond` gets a request and returns its answer. `pages` are the answers of GET routes."""

    def __init__(self, respond: Callable[[Request], Answer] | None = None) -> None:
        self.requests: list[Request] = []
        self.respond = respond or (lambda _: Answer())
        self.pages: dict[str, Answer] = {"/v1/models": Answer(body={"data": [{"id": "granite"}]})}
        self.lock, self.at_once, self.most_at_once = Lock(), 0, 0
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.answer(
                    outer.pages.get(self.path.partition("?")[0], Answer(404, {"error": {"message": "no page"}}))
                )

            def do_POST(self) -> None:
                with outer.lock:
                    outer.at_once += 1
                    outer.most_at_once = max(outer.most_at_once, outer.at_once)
                try:
                    request = self.parse()
                    outer.requests.append(request)
                    self.answer(outer.respond(request))
                finally:
                    with outer.lock:
                        outer.at_once -= 1

            def parse(self) -> Request:
                headers = {name.lower(): value for name, value in self.headers.items()}
                request = Request(self.path, headers)
                body = self.rfile.read(int(headers.get("content-length", 0)))
                head = f"Content-Type: {headers.get('content-type', '')}\r\n\r\n".encode()
                for part in BytesParser(policy=HTTP).parsebytes(head + body).iter_parts():
                    content = part.get_payload(decode=True)
                    assert isinstance(content, bytes)
                    if part.get_filename():
                        request.file_name, request.content = str(part.get_filename()), content
                    else:
                        name = str(part.get_param("name", header="content-disposition"))
                        request.form.setdefault(name, []).append(content.decode())
                return request

            def answer(self, answer: Answer) -> None:
                time.sleep(answer.delay)
                body = answer.body if isinstance(answer.body, bytes) else json.dumps(answer.body).encode()
                try:
                    self.send_response(answer.status)
                    self.send_header("Content-Type", answer.content_type)
                    self.send_header("Content-Length", str(len(body)))
                    for name, value in answer.headers.items():
                        self.send_header(name, value)
                    self.end_headers()
                    for part in (body[:2], body[2:4], body[4:]):
                        self.wfile.write(part)
                        time.sleep(answer.pause)
                except ConnectionError:
                    pass  # the client has left

            def log_message(self, *_: object) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        Thread(target=self.http.serve_forever, args=(0.01,), daemon=True).start()
        self.url = f"http://127.0.0.1:{self.http.server_port}"

    def close(self) -> None:
        self.http.shutdown()
        self.http.server_close()
