"""Runs `finetune check` and `finetune prepare` on a corpus of any shape, and compares its clips with direct cuts."""

import io
import json
import tarfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
from command import Command, CommandResult
from numpy.typing import NDArray

from finetune.core.files import read_json
from finetune.core.run_dir import RunDir
from finetune.data.audio import inspect_audio
from finetune.data.manifest import Utterance, read_manifest

RATE = 16_000


@dataclass(frozen=True)
class Prepared:
    """The output of check, the clips of train by id, and its dropped rows as (id, kind, position, detail)."""

    check: CommandResult
    clips: dict[str, Utterance]
    dropped: list[dict[str, str]]


def noise(seed: int, seconds: float = 1.5, channels: int = 1, rate: int = RATE) -> NDArray[np.float32]:
    """Samples (N,) or (N, channels) that are unlike those of any other seed, exact in 16 bits."""
    shape = (round(seconds * rate), channels)[: 1 + (channels > 1)]
    return np.random.default_rng(seed).integers(-9000, 9000, shape).astype(np.float32) / 2**15


def write_audio(path: Path, seed: int, seconds: float = 1.5, channels: int = 1, rate: int = RATE) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, noise(seed, seconds, channels, rate), rate)
    return path


def write_tar(path: Path, members: dict[str, bytes | Path]) -> Path:
    """A tar archive; a Path is the content of that file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for name, content in members.items():
            data = content if isinstance(content, bytes) else content.read_bytes()
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def run_check_and_prepare(
    finetune: Command, tmp_path: Path, source: object, base: Path, expected_code: int = 0
) -> Prepared:
    """Runs both commands with `source` (or a list of them) as train and a corpus of one clip as valid and test."""
    write_audio(tmp_path / "other" / "valid.wav", 9001)
    write_audio(tmp_path / "other" / "test.wav", 9002)
    for split in ("valid", "test"):
        row = {"audio_filepath": f"{split}.wav", "text": f"a sentence of {split}"}
        (tmp_path / "other" / f"{split}.jsonl").write_text(json.dumps(row))
    recipe = tmp_path / "recipe.yaml"
    data: dict[str, object] = {
        "train": list(map(str, source if isinstance(source, list) else [source])),
        "max_bad_fraction": 0.9,
    }
    data |= {split: [f"{tmp_path}/other/{split}.jsonl"] for split in ("valid", "test")}
    content = {"name": "x", "runs": f"{tmp_path}/runs", "model": {"base": str(base)}, "data": data}
    recipe.write_text(json.dumps(content))
    check, prepared = finetune("check", recipe), finetune("prepare", recipe)
    assert prepared.code == expected_code, prepared
    run = RunDir(tmp_path / "runs" / "x")
    clips = read_manifest(run.manifest("train"))
    return Prepared(check, {clip.id: clip for clip in clips}, read_json(run.problems)["train"]["dropped"])


def assert_clip(
    clip: Utterance, path: Path, text: str, start: float = 0.0, end: float | None = None, channel: int | None = None
) -> None:
    """The text of a clip, and exactly the samples of a part of a file that was cut directly."""
    length = None if end is None else end - start
    expected = inspect_audio(path, start, length, channel)
    assert (clip.text, clip.audio_digest) == (text, expected.digest)
    assert abs(clip.duration - expected.duration) < 1e-9
