"""A server on the embedded model, and what `finetune transcribe` gives for the same files."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import soxr
from conftest import VOCABULARY
from serving_server import Running, running

from finetune.core.options import override
from finetune.data.audio import SAMPLE_RATE, load_audio
from finetune.inference.saved_options import options_for
from finetune.inference.transcribe import Transcriber
from finetune.inference.transcript import Transcript
from finetune.model.granite import SpeechModel
from finetune.serving.models import Models, ServedModel

CLIPS = sorted((VOCABULARY / "audio" / "canary").glob("*.opus"))[:3]


@pytest.fixture(scope="session")
def served(model: Callable[[], SpeechModel], nano: Path) -> ServedModel:
    return ServedModel("nano", model(), options_for(nano))


@pytest.fixture(scope="session")
def server(served: ServedModel) -> Iterator[Running]:
    """One server for the tests that change nothing."""
    with running(Models([served])) as started:
        yield started


@pytest.fixture(scope="session")
def serve(served: ServedModel) -> Callable[..., Any]:
    """Runs a server; keywords are options."""
    return lambda **options: running(Models([served]), **options)


@pytest.fixture(scope="session")
def talk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three sentences with pauses, in two equal channels of 22.05 kHz; longer than a window."""
    pause = np.zeros(SAMPLE_RATE, np.float32)
    wave = np.concatenate([part for clip in CLIPS for part in (load_audio(clip), pause)])
    path = tmp_path_factory.mktemp("talk") / "talk.wav"
    wave = soxr.resample(wave, SAMPLE_RATE, 22_050)
    soundfile.write(path, np.stack([wave, wave], 1), 22_050)
    return path


@pytest.fixture(scope="session")
def direct(served: ServedModel) -> Callable[..., Transcript]:
    """What `finetune transcribe` gives for a file; keywords are its options."""

    def transcribe(path: Path, model: ServedModel = served, **options: Any) -> Transcript:
        (transcript,) = Transcriber(model.network, override(model.options, **options)).stream([path])
        return transcript

    return transcribe
