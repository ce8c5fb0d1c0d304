"""wandb, tensorboard and trackio behind one interface. A failure of a tracker is a warning and stops nothing."""

import logging
import secrets
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from contextvars import copy_context
from dataclasses import dataclass
from pathlib import Path
from threading import Thread
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from finetune.core.extras import require

log = logging.getLogger(__name__)

PROJECT = "finetune-granite-speech"
CLOSE_SECONDS = 120.0  # for sending what is left at the end; a run does not wait longer for a server
LOGIN_SECONDS = 60.0  # for an answer in a terminal, where wandb asks for a key that it does not have
FAILED_SECONDS = 10.0  # for closing a tracker that has failed
Cell = str | int | float | None


@dataclass(frozen=True)
class Table:
    """A table with the name of each column."""

    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]


@dataclass(frozen=True)
class Sound:
    """A clip to play: `samples` are 16-bit and mono; `title` names its list and id, `text` is its reference."""

    title: str
    text: str
    samples: npt.NDArray[np.int16]
    sample_rate: int


@dataclass(frozen=True)
class TrackedResults:
    """What a tracker receives after an evaluation: numbers and tables by name, and clips to play."""

    numbers: Mapping[str, float]
    tables: Mapping[str, Table]
    sounds: Sequence[Sound]


class ExperimentTracker(Protocol):
    """One run in one tracker. A method can raise any error."""

    def log(self, numbers: dict[str, float], step: int) -> None:
        """Adds a point to the curve of each number, at an optimizer step."""

    def log_results(self, results: TrackedResults, step: int) -> None:
        """Adds the results of an evaluation; `step` is the last optimizer step."""

    def close(self) -> None:
        """Sends what is left."""


def open_trackers(
    names: Sequence[str], folder: Path, name: str, settings: dict[str, Any], step: int | None
) -> dict[str, ExperimentTracker]:
    """Opens the trackers of a run; one that cannot be opened is left out, with a warning.

    Args:
        names: any of wandb, tensorboard, trackio.
        folder: the run directory, with the files of the trackers.
        name: name of the run.
        settings: settings of the run.
        step: None for a new training; otherwise the run continues after this optimizer step.
    """
    trackers: dict[str, ExperimentTracker] = {}
    for tracker in names:
        try:
            trackers[tracker] = START[tracker](folder, name, settings, step)
        except Exception as error:  # a failure of a tracker must not stop the run
            log.warning("%s is off for this run: %s", tracker, error)
    return trackers


def call_each(trackers: dict[str, ExperimentTracker], call: Callable[[ExperimentTracker], object]) -> None:
    """Calls all trackers. One that fails is removed with a warning."""
    for name, tracker in list(trackers.items()):
        try:
            call(tracker)
        except Exception as error:
            log.warning("%s is off from now on, the run continues: %s", name, error)
            del trackers[name]
            with suppress(Exception):  # keeps what it has
                _within(FAILED_SECONDS, tracker.close)


def close_trackers(trackers: Mapping[str, ExperimentTracker], seconds: float = CLOSE_SECONDS + 10) -> None:
    """Closes all trackers, and waits at most this many seconds for each."""
    for name, tracker in trackers.items():
        try:
            _within(seconds, tracker.close)
        except Exception as error:
            log.warning("%s did not finish: %s", name, error)


def _within(seconds: float, action: Callable[[], object]) -> None:
    """Runs an action, and raises its error, or TimeoutError if it takes longer; it then continues in a thread."""
    errors: list[Exception] = []

    def run() -> None:
        try:
            action()
        except Exception as error:
            errors.append(error)

    thread = Thread(target=copy_context().run, args=(run,), daemon=True)
    thread.start()
    thread.join(seconds)
    if thread.is_alive():
        raise TimeoutError(f"not all data was sent within {seconds:g} seconds")
    if errors:
        raise errors[0]


def _run_id(path: Path, new: bool) -> str:
    """The id of a run in a tracker, which its directory keeps; a new training gets a new one."""
    if new or not path.is_file():
        path.write_text(secrets.token_hex(4), encoding="utf-8")
    return path.read_text(encoding="utf-8")


class Wandb:
    """A run of Weights & Biases; without a network, `WANDB_MODE=offline` keeps it for `wandb sync`."""

    def __init__(self, folder: Path, name: str, settings: dict[str, Any], step: int | None) -> None:
        import wandb

        self.wandb, self.folder = wandb, folder / "wandb"
        wandb.setup(wandb.Settings(login_timeout=LOGIN_SECONDS))
        options: dict[str, Any] = {"console": "off"}
        if "finish_timeout" in getattr(wandb.Settings, "model_fields", ()):
            options |= {"finish_timeout": CLOSE_SECONDS, "finish_timeout_raises": True}
        self.run = wandb.init(
            project=PROJECT,
            name=name,
            id=_run_id(folder / "wandb-id", step is None),
            resume="allow",
            config=settings,
            dir=str(folder),
            settings=wandb.Settings(**options),
        )
        # wandb's own step can only increase, so it would reject the steps that a resumed run repeats.
        self.run.define_metric("*", step_metric="optimizer_step")

    def log(self, numbers: dict[str, float], step: int) -> None:
        self.run.log({**numbers, "optimizer_step": step})

    def log_results(self, results: TrackedResults, step: int) -> None:
        self.run.summary.update(dict(results.numbers))
        content: dict[str, Any] = {
            name: self.wandb.Table(
                columns=[*table.columns], data=[list(row) for row in table.rows], allow_mixed_types=True
            )
            for name, table in results.tables.items()
        }
        # Audio in the table of the clips would be in an artifact, outside of the folder that `wandb sync` sends.
        if results.sounds:
            content["clips/audio"] = [
                self.wandb.Audio(sound.samples, sample_rate=sound.sample_rate, caption=f"{sound.title}: {sound.text}")
                for sound in results.sounds
            ]
        self.run.log({**content, "optimizer_step": step})

    def close(self) -> None:
        self.run.finish()
        if getattr(self.run, "offline", False):
            log.info("wandb is offline; to send this run later: wandb sync %s/offline-run-*", self.folder)


class TensorBoard:
    """Event files in `tensorboard/`; nothing leaves the machine."""

    def __init__(self, folder: Path, name: str, settings: dict[str, Any], step: int | None) -> None:
        module = require("torch.utils.tensorboard", extra="tensorboard")
        self.writer = module.SummaryWriter(str(folder / "tensorboard"), purge_step=0 if step is None else step + 1)

    def log(self, numbers: dict[str, float], step: int) -> None:
        for name, value in numbers.items():
            self.writer.add_scalar(name, value, step)

    def log_results(self, results: TrackedResults, step: int) -> None:
        self.log(dict(results.numbers), step)
        for name, table in results.tables.items():
            self.writer.add_text(name, _markdown(table), step)
        for number, sound in enumerate(results.sounds, 1):
            samples = (sound.samples / np.float32(2**15))[None]
            self.writer.add_audio(f"clips/{number:02d} {sound.title}", samples, step, sound.sample_rate)

    def close(self) -> None:
        self.writer.close()


class Trackio:
    """A run of trackio: on this machine, or in a private space if `TRACKIO_SPACE_ID` names one."""

    def __init__(self, folder: Path, name: str, settings: dict[str, Any], step: int | None) -> None:
        self.trackio = require("trackio", extra="trackio")
        name = f"{name}-{_run_id(folder / 'trackio-id', step is None)}"  # trackio finds a run by its name
        resume = "never" if step is None else "allow"
        self.trackio.init(project=PROJECT, name=name, config=settings, resume=resume, private=True)

    def log(self, numbers: dict[str, float], step: int) -> None:
        self.trackio.log(numbers, step=step)

    def log_results(self, results: TrackedResults, step: int) -> None:
        content: dict[str, Any] = dict(results.numbers)
        for name, table in results.tables.items():
            content[name] = self.trackio.Table(data=[dict(zip(table.columns, row, strict=True)) for row in table.rows])
        for number, sound in enumerate(results.sounds, 1):
            content[f"clips/{number:02d}"] = self.trackio.Audio(
                sound.samples, f"{sound.title}: {sound.text}", sound.sample_rate, format="wav"
            )
        self.trackio.log(content, step=step)

    def close(self) -> None:
        self.trackio.finish()


def _markdown(table: Table) -> str:
    """A table in Markdown."""

    def line(cells: Sequence[Cell]) -> str:
        texts = ("" if cell is None else f"{cell:.4g}" if isinstance(cell, float) else str(cell) for cell in cells)
        return "| " + " | ".join(" ".join(text.replace("|", "\\|").split()) for text in texts) + " |"

    return "\n".join([line(table.columns), line(["---"] * len(table.columns)), *map(line, table.rows)])


START: dict[str, Callable[[Path, str, dict[str, Any], int | None], ExperimentTracker]] = {
    "wandb": Wandb,
    "tensorboard": TensorBoard,
    "trackio": Trackio,
}
