"""Helpers of the tests of the command: its types, audio files, calibrated models."""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import soundfile

from finetune.cli import main as cli
from finetune.cli.arguments import Subparsers
from finetune.core.files import write_json
from finetune.inference.saved_options import CALIBRATION


class CommandResult(NamedTuple):
    """Exit code, standard output and standard error."""

    code: int
    out: str
    err: str


Command = Callable[..., CommandResult]


class Replaced:
    """The parsers of a command, with another function for its work; for the argument `commands` of `main`."""

    def __init__(self, command: cli.Command, run: Callable[[argparse.Namespace], int]) -> None:
        self.command, self.run = command, run

    def add_parser(self, subparsers: Subparsers) -> None:
        self.command.add_parser(subparsers)
        for parser in subparsers.choices.values():
            parser.set_defaults(run=self.run)


def noise(path: Path, seconds: float = 1.0) -> Path:
    """Writes a 16 kHz WAV file of white noise; the noise depends on the file's name only."""
    rng = np.random.default_rng(sum(map(ord, path.name)))
    soundfile.write(path, rng.uniform(-0.3, 0.3, round(16_000 * seconds)).astype(np.float32), 16_000, subtype="FLOAT")
    return path


def with_thresholds(model: Path, folder: Path, max_entropy: float, min_probability: float) -> Path:
    """A new folder with links to the files of a model, and thresholds as `finetune calibrate` writes them."""
    folder.mkdir()
    for path in model.iterdir():
        (folder / path.name).symlink_to(path)
    write_json(folder / CALIBRATION, {"max_entropy": max_entropy, "min_probability": min_probability})
    return folder
