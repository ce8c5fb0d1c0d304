"""A stand-in of a W&B server on a local socket: it keeps what a run or `wandb sync` sends."""

import gzip
import json
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

KEY = "a" * 40


@dataclass
class Run:
    """What the server has of one run: rows of its history, last summary, uploaded files."""

    name: str
    project: str
    history: list[dict[str, Any]] = field(default_factory=list)
    events: int = 0
    summary: dict[str, Any] = field(default_factory=dict)
    files: set[str] = field(default_factory=set)

    def status(self) -> dict[str, Any]:
        """The answer for a client that resumes the run."""
        tail = json.dumps([json.dumps(self.history[-1])]) if self.history else "[]"
        return {
            "id": "run",
            "name": self.name,
            "summaryMetrics": json.dumps(self.summary),
            "displayName": self.name,
            "logLineCount": 0,
            "historyLineCount": len(self.history),
            "eventsLineCount": self.events,
            "historyTail": tail,
            "eventsTail": "[]",
            "config": "{}",
            "tags": [],
            "wandbConfig": json.dumps({"t": 1}),
        }


class WandbServer:
    """The runs by id. It answers the requests of wandb 0.31."""

    def __init__(self) -> None:
        self.runs: dict[str, Run] = {}
        self.http = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        Thread(target=self.http.serve_forever, args=(0.01,), daemon=True).start()
        self.url = f"http://127.0.0.1:{self.http.server_port}"

    def close(self) -> None:
        self.http.shutdown()
        self.http.server_close()

    def graphql(self, query: str, values: dict[str, Any]) -> dict[str, Any]:
        """The data of an answer."""
        project = {"id": "project", "name": values.get("project"), "entity": {"id": "entity", "name": "me"}}
        if "upsertBucket" in query:
            known = values["name"] in self.runs
            run = self.runs.setdefault(values["name"], Run(values["name"], values["project"]))
            bucket = {**run.status(), "description": "", "sweepName": None, "project": project}
            return {"upsertBucket": {"bucket": bucket, "inserted": not known}}
        if "RunResumeStatus" in query:
            run = self.runs.get(values["name"])  # type: ignore[assignment]
            return {"model": {**project, "bucket": run.status() if run else None}}
        if "createRunFiles" in query:
            files = [{"name": name, "uploadUrl": f"{self.url}/up/{values['run']}/{name}"} for name in values["files"]]
            return {"createRunFiles": {"runID": "run", "uploadHeaders": [], "files": files}}
        if "createArtifact" in query:
            artifact = {"id": "artifact", "state": "COMMITTED", "artifactSequence": {"latestArtifact": None}}
            return {"createArtifact": {"artifact": artifact}}
        if "artifactType" in query:
            return {"project": {"artifact": {"artifactType": {"name": "run_table"}}}}
        if "viewer" in query:
            user = {"id": "user", "entity": "me", "username": "me", "email": "", "flags": "{}", "teams": {"edges": []}}
            return {"viewer": user}
        return {"serverInfo": {"features": [], "cliVersionInfo": {}, "latestLocalVersionInfo": None}}

    def stream(self, name: str, files: dict[str, Any]) -> None:
        """Rows of a run; each file says at which line they start."""
        run = self.runs[name]
        for path, part in files.items():
            if path == "wandb-history.jsonl":
                run.history[part["offset"] :] = [json.loads(line) for line in part["content"]]
            elif path == "wandb-summary.json":
                run.summary = json.loads(part["content"][-1])
            elif path == "wandb-events.jsonl":
                run.events = part["offset"] + len(part["content"])


def _handler(server: WandbServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            pass

        def _body(self) -> bytes:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            return gzip.decompress(body) if self.headers.get("Content-Encoding") == "gzip" else body

        def _answer(self, content: Any) -> None:
            data = json.dumps(content).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def do_GET(self) -> None:
            self._answer({})

        def do_PUT(self) -> None:
            self._body()
            _, _, run, name = self.path.split("/", 3)
            server.runs[run].files.add(name)
            self._answer({})

        def do_POST(self) -> None:
            body = self._body()  # of other paths: telemetry of wandb itself
            answer: dict[str, Any] = {}
            if self.path == "/graphql":
                request = json.loads(body)
                answer = {"data": server.graphql(request["query"], request.get("variables") or {})}
            elif self.path.endswith("/file_stream"):
                server.stream(self.path.split("/")[-2], json.loads(body).get("files") or {})
            self._answer(answer)

    return Handler
