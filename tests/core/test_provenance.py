"""What a result was made with, and the small audio of a report."""

import io
import re
from pathlib import Path

import pytest
import soundfile
from conftest import ROOT, embedded

from finetune.core import provenance as module
from finetune.core.provenance import provenance
from finetune.data.snippet import mp3


def test_versions_and_machine() -> None:
    found = provenance("cpu", "float32")
    if (ROOT / ".git").exists():
        assert re.fullmatch(r"[0-9a-f]{40}\+?", found["commit"])
    assert re.match(r"\d+\.\d", found["libraries"]["torch"])
    assert found["device"].endswith(" cores") and provenance("NVIDIA X", "bfloat16")["device"] == "NVIDIA X"
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", found["made"])


def test_outside_a_checkout_nothing_is_known(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(module, "__file__", str(tmp_path / "provenance.py"))
    monkeypatch.setattr(module, "LIBRARIES", ("no-such-library",))
    found = provenance("cpu", "float32")
    assert found["commit"] is None and found["libraries"] == {"no-such-library": "not installed"}


def test_a_clip_in_a_few_kilobytes() -> None:
    clip = embedded("test", 1)[0]
    whole, part = mp3(clip.audio_filepath, 0.0, clip.duration), mp3(clip.audio_filepath, 0.5, 1.0)
    sound, rate = soundfile.read(io.BytesIO(part))
    assert len(part) < len(whole) < 8000 * clip.duration
    assert rate == 16_000 and abs(len(sound) / rate - 1.0) < 0.1 and abs(sound).max() > 0.01
