"""The API as the official client and curl use it."""

from conftest import VOCABULARY

CANARY = VOCABULARY / "audio" / "canary"
PARK = CANARY / "canary-001-en-us-f3.opus"


def test_a_transcription_as_json(server) -> None:
    result = server.client().audio.transcriptions.create(model="nano", file=PARK.open("rb"))
    print(result)
    assert result.text


def test_state(server) -> None:
    import httpx
    for path in ("/health", "/ready", "/v1/models", "/metrics", "/", "/v1/server", "/nothing", "/openapi.json"):
        r = httpx.get(server.url + path)
        print(path, r.status_code, r.text[:300])
    print(server.post("/v1/corrections").text)
    print(server.post(data={"model": "x"}, files={"file": PARK.read_bytes()}).text)
    print(server.post(data={"response_format": "verbose_json"}, files={"file": PARK.read_bytes()}).text)
    print(server.post(data={"stream": "true"}, files={"file": PARK.read_bytes()}).text)
