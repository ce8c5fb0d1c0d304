"""`POST /v1/corrections` of a running server, and the page that it serves."""

import json
from pathlib import Path
from typing import Any

import httpx
import pytest
from command import Command, noise
from conftest import VOCABULARY
from page_server import PAGE

from finetune.core.errors import DataError
from finetune.data.manifest import read_manifest

ROUTE = "/v1/corrections"
CLIP = VOCABULARY / "audio" / "canary" / "canary-001-en-us-f3.opus"


def content(*texts: str, **values: Any) -> dict[str, str]:
    segments = [{"start": number, "end": number + 0.5, "text": text} for number, text in enumerate(texts)]
    return {"corrections": json.dumps({"segments": segments, **values})}


def error_of(response: httpx.Response) -> dict[str, Any]:
    error = response.json()["error"]
    assert isinstance(error, dict) and error["message"]
    return error


def test_corrections_are_saved(serve: Any, tmp_path: Path) -> None:
    with serve(corrections=str(tmp_path / "saved")) as server:
        data = content("we went", "park", language="en", model="nano", file_name="a.opus")
        answer = server.post(ROUTE, files={"file": ("../x.sh", CLIP.read_bytes())}, data=data)
        assert (answer.status_code, answer.json()) == (200, {"saved": 2, "replaced": 0})
        assert server.post(ROUTE, files={"file": ("b", CLIP.read_bytes())}, data=content("we")).json()["replaced"] == 1
        assert server.app.state.gate.inside == 0
        assert httpx.get(f"{server.url}/v1/server").json()["corrections"] is True
        assert ROUTE in httpx.get(f"{server.url}/openapi.json").json()["paths"]
    assert [row.text for row in read_manifest(tmp_path / "saved" / "manifest.jsonl")] == ["park", "we"]


def test_wrong_requests_have_the_right_status(serve: Any, tmp_path: Path) -> None:
    clip = {"file": ("a.opus", CLIP.read_bytes())}
    with serve(corrections=str(tmp_path / "saved"), max_audio=2.5, max_upload=100_000, api_keys=("key",)) as server:
        key = {"Authorization": "Bearer key"}

        def post(files: Any, data: Any) -> httpx.Response:
            return server.post(ROUTE, files=files, data=data, headers=key)  # type: ignore[no-any-return]

        assert server.post(ROUTE, files=clip, data=content("a")).status_code == 401
        assert error_of(post({"other": ("a", b"x")}, content("a")))["param"] == "other"
        assert post(None, content("a")).status_code == 415
        assert error_of(post(clip, {}))["code"] == "wrong_fields"
        assert error_of(post(clip, {**content("a"), "path": "/etc"}))["code"] == "wrong_fields"
        wrong = post(clip, {"corrections": '{"segments": 5}'})
        assert wrong.status_code == 400 and "segments" in error_of(wrong)["message"]
        assert len(error_of(post(clip, content("a", **{"x" * 50_000: 1})))["message"]) <= 1000
        assert "segment 1 has no words" in error_of(post(clip, content("")))["message"]
        assert "Klingon" in error_of(post(clip, content("a", language="Klingon")))["message"]
        assert error_of(post({"file": ("a.wav", b"<html>")}, content("a")))["code"] == "invalid_audio"
        long = noise(tmp_path / "long.wav", 3.0).read_bytes()
        assert post({"file": ("a.wav", long)}, content("a")).status_code == 413, "more bytes than the limit"
        assert server.app.state.gate.inside == 0
    assert not (tmp_path / "saved" / "manifest.jsonl").exists()


def test_the_texts_of_a_long_file_fit_into_a_request(serve: Any, tmp_path: Path) -> None:
    with serve(corrections=str(tmp_path / "saved")) as server:
        data = content("a", "b " * 50_000, model="x")
        answer = server.post(ROUTE, files={"file": ("a", noise(tmp_path / "a.wav", 3.0).read_bytes())}, data=data)
    assert answer.json() == {"saved": 2, "replaced": 0}


def test_corrections_are_off_by_default(server: Any) -> None:
    answer = server.post(ROUTE, files={"file": ("a.opus", CLIP.read_bytes())}, data=content("a"))
    assert answer.status_code == 403 and "--corrections DIR" in error_of(answer)["message"]
    assert httpx.get(f"{server.url}/v1/server").json()["corrections"] is False


def test_a_folder_that_cannot_be_used_ends_the_start(serve: Any, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(DataError, match="corrections cannot be saved here"), serve(corrections=str(tmp_path / "file")):
        pass


def test_the_page_is_served_with_its_files(server: Any) -> None:
    for path in PAGE.iterdir():
        answer = httpx.get(f"{server.url}/{path.name}")
        assert answer.content == path.read_bytes()
        assert answer.headers["x-content-type-options"] == "nosniff"
    assert httpx.get(f"{server.url}/app.js").headers["content-type"].startswith("text/javascript")
    assert httpx.get(f"{server.url}/").content == (PAGE / "index.html").read_bytes()
    assert httpx.get(f"{server.url}/../errors.py").status_code == 404


def test_the_command_offers_a_folder(finetune: Command) -> None:
    assert "--corrections DIR" in finetune("serve", "--help").out
