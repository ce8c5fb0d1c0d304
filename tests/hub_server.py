"""A stand-in of the Hugging Face Hub on a local socket: accounts, repositories, large files and commits of models."""

import base64
import hashlib
import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any, BinaryIO

TOKEN, READ_TOKEN = "hf_" + "w" * 34, "hf_" + "r" * 34
USER = "someone"
SMALL = 100_000  # bytes up to which a file is no large one


class HubServer:
    """The state of the hub.

    Attributes:
        repositories: By name: `private`, `files` by path, `commits` with their paths.
        objects: Large files by SHA-256.
        uploads: SHA-256 of each large file that was sent, in order.
        fail_after: Number of uploads after which the next one fails; None for never.
        requests: Method and path of each request.
    """

    def __init__(self) -> None:
        self.repositories: dict[str, dict[str, Any]] = {}
        self.objects: dict[str, bytes] = {}
        self.uploads: list[str] = []
        self.fail_after: int | None = None
        self.requests: list[tuple[str, str]] = []
        self.http = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        Thread(target=self.http.serve_forever, args=(0.01,), daemon=True).start()
        self.url = f"http://127.0.0.1:{self.http.server_port}"

    def add(self, name: str, files: dict[str, bytes], private: bool = True) -> None:
        """A repository with files."""
        self.repositories[name] = {"private": private, "files": {".gitattributes": b"", **files}, "commits": []}

    def files(self, name: str) -> dict[str, bytes]:
        """The files of a repository, without that of the hub itself."""
        return {path: data for path, data in self.repositories[name]["files"].items() if path != ".gitattributes"}

    def close(self) -> None:
        self.http.shutdown()
        self.http.server_close()

    def get(self, path: str) -> tuple[int, Any]:
        """The answer to GET."""
        if path == "/api/whoami-v2":
            return 200, {"name": USER, "type": "user"}
        name = path.removeprefix("/api/models/").partition("/revision/")[0]
        if name not in self.repositories:
            return 404, {"error": "Repository not found"}
        repository = self.repositories[name]
        siblings = [{"rfilename": file} for file in repository["files"]]
        return 200, {"id": name, "private": repository["private"], "siblings": siblings, "sha": "0" * 40, "tags": []}

    def post(self, path: str, body: bytes) -> tuple[int, Any]:
        """The answer to POST."""
        if path == "/api/validate-yaml":
            return 200, {"errors": [], "warnings": []}
        if path == "/api/repos/create":
            row = json.loads(body)
            name = f"{row['organization'] or USER}/{row['name']}"
            self.add(name, {}, private=row.get("private", row.get("visibility") == "private"))
            return 200, {"url": f"{self.url}/{name}"}
        if path.endswith(".git/info/lfs/objects/batch"):
            return 200, {"objects": [self._batch(row) for row in json.loads(body)["objects"]]}
        name, _, action = path.removeprefix("/api/models/").rpartition("/main")[0].rpartition("/")
        files = self.repositories[name]["files"]
        if action == "preupload":
            rows = json.loads(body)["files"]
            return 200, {"files": [self._mode(row, files) for row in rows]}
        assert action == "commit"
        changed = []
        for line in body.decode().splitlines():
            row = json.loads(line)
            value, key = row["value"], row["key"]
            if key == "header":
                continue
            changed.append(value["path"])
            if key == "deletedFile":
                del files[value["path"]]
            else:
                content = base64.b64decode(value["content"]) if key == "file" else self.objects[value["oid"]]
                files[value["path"]] = content
        self.repositories[name]["commits"].append(changed)
        return 200, {"commitUrl": f"{self.url}/{name}/commit/1", "commitOid": "1" * 40, "pullRequestUrl": None}

    def _mode(self, row: dict[str, Any], files: dict[str, bytes]) -> dict[str, Any]:
        old = files.get(row["path"])
        large = row["size"] > SMALL
        oid = None
        if old is not None:
            oid = hashlib.sha256(old).hexdigest() if large else hashlib.sha1(b"blob %d\0" % len(old) + old).hexdigest()
        mode = "lfs" if large else "regular"
        return {"path": row["path"], "uploadMode": mode, "shouldIgnore": False, "oid": oid}

    def _batch(self, row: dict[str, Any]) -> dict[str, Any]:
        answer = {"oid": row["oid"], "size": row["size"]}
        if row["oid"] in self.objects:
            return answer
        return answer | {"actions": {"upload": {"href": f"{self.url}/upload/{row['oid']}"}}}


def _chunks(stream: BinaryIO) -> Iterator[bytes]:
    while size := int(stream.readline(), 16):
        yield stream.read(size)
        stream.readline()
    stream.readline()


def _handler(hub: HubServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def _answer(self, code: int, content: Any) -> None:
            body = json.dumps(content).encode()
            self.send_response(code)
            self.send_header("Content-Length", str(len(body)))
            if code == 404:
                self.send_header("X-Error-Code", "RepoNotFound")
            self.end_headers()
            self.wfile.write(body)

        def _body(self) -> bytes:
            if self.headers.get("Transfer-Encoding") == "chunked":
                return b"".join(_chunks(self.rfile))
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))

        def _refused(self, body: bytes | None = None) -> bool:
            hub.requests.append((self.command, self.path))
            token = self.headers.get("Authorization", "").removeprefix("Bearer ")
            if token not in (TOKEN, READ_TOKEN):
                self._answer(401, {"error": "Invalid credentials"})
                return True
            if token == READ_TOKEN and self.command != "GET":
                self._answer(403, {"error": "no write permission"})
                return True
            return False

        def do_GET(self) -> None:
            if not self._refused():
                self._answer(*hub.get(self.path.partition("?")[0]))

        def do_POST(self) -> None:
            body = self._body()
            if not self._refused():
                self._answer(*hub.post(self.path.partition("?")[0], body))

        def do_PUT(self) -> None:
            hub.requests.append((self.command, self.path))
            if hub.fail_after is not None and len(hub.uploads) >= hub.fail_after:
                self._body()
                self._answer(400, {"error": "the connection broke"})
                return
            content, oid = self._body(), self.path.rpartition("/")[2]
            assert hashlib.sha256(content).hexdigest() == oid
            hub.objects[oid] = content
            hub.uploads.append(oid)
            self._answer(200, {})

        def log_message(self, *_: object) -> None:
            pass

    return Handler
