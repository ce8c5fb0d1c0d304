"""The API as OpenAI's client uses it, on the embedded model."""

from conftest import VOCABULARY

CANARY = VOCABULARY / "audio" / "canary"
PARK = CANARY / "canary-001-en-us-f3.opus"


def test_a_transcription_as_json(server) -> None:  # type: ignore[no-untyped-def]
    with PARK.open("rb") as file:
        result = server.client().audio.transcriptions.create(model="nano", file=file)
    assert result.text == "we went to the park after lunch" and result.usage.seconds == 2
