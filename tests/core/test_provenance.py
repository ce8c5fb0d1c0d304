"""The provenance of a result, and the MP3 clips of a report."""

import io
import re
from pathlib import Path

import soundfile
from conftest import ROOT, embedded

from finetune.core.provenance import provenance
from finetune.data.snippet import mp3


def test_versions_and_machine() -> None:
    record = provenance("cpu", "float32")
    if (ROOT / ".git").exists():
        assert re.fullmatch(r"[0-9a-f]{40}\+?", record["commit"])
    assert re.match(r"\d+\.\d", record["libraries"]["torch"])
    assert record["device"].endswith(" cores") and provenance("NVIDIA X", "bfloat16")["device"] == "NVIDIA X"
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", record["made"])


def test_outside_a_checkout_the_commit_is_none(tmp_path: Path) -> None:
    record = provenance("cpu", "float32", libraries=["no-such-library"], source=tmp_path)
    assert record["commit"] is None and record["libraries"] == {"no-such-library": "not installed"}


def test_an_mp3_clip_has_a_few_kilobytes() -> None:
    clip = embedded("test", 1)[0]
    full, part = mp3(clip.audio_filepath, 0.0, clip.duration), mp3(clip.audio_filepath, 0.5, 1.0)
    sound, rate = soundfile.read(io.BytesIO(part))
    assert len(part) < len(full) < 8000 * clip.duration
    assert rate == 16_000 and abs(len(sound) / rate - 1.0) < 0.1 and abs(sound).max() > 0.01
