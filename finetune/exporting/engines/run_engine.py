"""Runs an engine on clips: a runner in the engine's own environment, as one process with a time limit."""

import json
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from finetune.core.errors import ModelError

RUNNERS = Path(__file__).parent / "runners"
SHOWN = 1500  # characters at the end of the engine's messages in an error


@dataclass(frozen=True)
class EngineClip:
    """A clip for an engine: samples (N,) at 16 kHz, and its prompt in both forms that engines take.

    Attributes:
        prompt: The rendered chat template, with `<|audio|>`.
        request: The text of the user's turn after the audio.
    """

    id: str
    samples: NDArray[np.float32]
    prompt: str
    request: str


@dataclass
class EngineAnswer:
    """What an engine wrote.

    Attributes:
        texts: Text by clip id.
        seconds: Computing time by clip id.
        versions: Version of each package.
        load_seconds: Time to load the model.
        peak_memory_bytes: Peak resident memory of the process; children of the process are not counted.
    """

    texts: dict[str, str] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    load_seconds: float = 0.0
    peak_memory_bytes: int = 0
    complete: bool = False


def run_engine(
    python: Path,
    runner: str,
    model: dict[str, str],
    clips: list[EngineClip],
    limit: int,
    work: Path,
    timeout: float,
    runners: Path = RUNNERS,
) -> EngineAnswer:
    """The texts of all clips.

    Args:
        python: Interpreter of the engine's environment.
        runner: Name of a runner.
        model: What the runner loads: `model` and, by engine, `gguf` or `adapter`.
        clips: The clips.
        limit: Most new tokens of a clip.
        work: An existing folder for the files of both processes.
        timeout: Seconds after which the process is killed.
        runners: The folder of the runners.

    Raises:
        ModelError: the engine failed or did not end; the message has its last lines.
    """
    rows = []
    for number, clip in enumerate(clips):
        path = work / f"{number}.npy"
        np.save(path, np.asarray(clip.samples, dtype=np.float32))
        rows.append({"id": clip.id, "samples": str(path), "prompt": clip.prompt, "request": clip.request})
    request, answer = work / "request.json", work / "answer.jsonl"
    request.write_text(json.dumps({**model, "clips": rows, "max_new_tokens": limit}), encoding="utf-8")
    log = work / "engine.log"
    command = [str(python), str(runners / f"run_{runner}.py"), str(request), str(answer)]
    with log.open("wb") as messages:
        try:
            code = subprocess.run(command, stdout=messages, stderr=messages, timeout=timeout, check=False).returncode
        except subprocess.TimeoutExpired:
            raise ModelError(
                f"{runner} did not end in {timeout:.0f} s, after {len(_read(answer).texts)} of {len(clips)} clips; "
                f"use --timeout to wait longer{_tail(log)}"
            ) from None
    result = _read(answer)
    if code or not result.complete:
        raise ModelError(
            f"{runner} stopped with exit code {code} after {len(result.texts)} of {len(clips)} clips{_tail(log)}"
        )
    return result


def _read(path: Path) -> EngineAnswer:
    """What the runner has written so far."""
    result = EngineAnswer()
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    for line in lines:
        try:
            row: dict[str, Any] = json.loads(line)
        except json.JSONDecodeError:  # the process ended in the middle of a line
            break
        if "text" in row:
            result.texts[row["id"]], result.seconds[row["id"]] = row["text"], row["seconds"]
        else:
            for name, value in row.items():
                setattr(result, name, value)
    return result


def _tail(log: Path) -> str:
    text = log.read_text(encoding="utf-8", errors="replace").strip()
    return f". Its last messages:\n{text[-SHOWN:]}" if text else ""
