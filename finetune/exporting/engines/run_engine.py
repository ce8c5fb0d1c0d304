"""Runs an engine on clips: a runner in the engine's own environment, as one process with a time limit."""

import json
import os
import signal
import subprocess
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from finetune.core.errors import ModelError
from finetune.core.wording import count

RUNNERS = Path(__file__).parent / "runners"
SHOWN = 1500  # characters at the end of the engine's messages in an error


@dataclass(frozen=True)
class EngineClip:
    """A clip for an engine: samples (N,) at 16 kHz, and its prompt in the forms that engines take.

    Attributes:
        prompt: The rendered chat template, with `<|audio|>`.
        request: The text of the user's turn after the audio.
        tokens: The tokens of `prompt` before and after the audio.
    """

    id: str
    samples: NDArray[np.float32]
    prompt: str
    request: str
    tokens: tuple[tuple[int, ...], tuple[int, ...]]


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
    model: dict[str, Any],
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
        ModelError: the engine failed, did not end, or its answer is damaged; the message has its last lines.
    """
    rows = []
    for number, clip in enumerate(clips):
        path = work / f"{number}.npy"
        np.save(path, np.asarray(clip.samples, dtype=np.float32))
        rows.append({**vars(clip), "samples": str(path)})
    request, answer = work / "request.json", work / "answer.jsonl"
    request.write_text(json.dumps({**model, "clips": rows, "max_new_tokens": limit}), encoding="utf-8")
    log = work / "engine.log"
    code = _run([str(python), str(runners / f"run_{runner}.py"), str(request), str(answer)], log, timeout)
    result = _read(answer)
    done = f"after {len(result.texts)} of {count(len(clips), 'clip')}"
    if code is None:
        raise ModelError(f"{runner} did not end in {timeout:.0f} s, {done}; use --timeout to wait longer{_tail(log)}")
    if code or not result.complete:
        raise ModelError(f"{runner} stopped {_how(code)} {done}{_tail(log)}")
    if missing := [clip.id for clip in clips if clip.id not in result.texts]:
        raise ModelError(f"{runner} ended without the text of {missing[0]}, {done}{_tail(log)}")
    return result


def _run(command: list[str], log: Path, timeout: float) -> int | None:
    """The exit code of a process, or None after the timeout. Its children end with it."""
    with log.open("wb") as messages:
        process = subprocess.Popen(command, stdout=messages, stderr=messages, start_new_session=True)
        try:
            return process.wait(timeout)
        except subprocess.TimeoutExpired:
            return None
        finally:
            with suppress(ProcessLookupError, PermissionError):  # all have ended
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _how(code: int) -> str:
    """How a process stopped."""
    if code >= 0:
        return f"with exit code {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    return f"by {name}{' (was the memory full?)' * (name == 'SIGKILL')}"


def _read(path: Path) -> EngineAnswer:
    """What the runner has written so far, up to the first line that is not of its protocol."""
    result = EngineAnswer()
    lines = path.read_bytes().decode("utf-8", errors="replace").split("\n") if path.is_file() else []
    for line in lines[:-1]:  # the process may have ended in the middle of the last one
        try:
            row = json.loads(line)
            if "text" in row:
                result.texts[str(row["id"])], result.seconds[str(row["id"])] = str(row["text"]), float(row["seconds"])
            elif "versions" in row:
                result.versions = {str(name): str(version) for name, version in row["versions"].items()}
            elif "load_seconds" in row:
                result.load_seconds = float(row["load_seconds"])
            else:
                result.peak_memory_bytes, result.complete = int(row["peak_memory_bytes"]), bool(row["complete"])
        except (ValueError, TypeError, KeyError, AttributeError):
            break
    return result


def _tail(log: Path) -> str:
    text = log.read_text(encoding="utf-8", errors="replace").strip()
    return f". Its last messages:\n{text[-SHOWN:]}" if text else ""
