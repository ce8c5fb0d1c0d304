"""Writes a video whose audio begins later than its pictures."""

import importlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

FRAME = 1024  # samples of a packet of AAC


def write_video(path: Path, samples: NDArray[np.float32], start: float, gap: float = 0.0) -> None:
    """A video of 4 s of black pictures; its audio (16 kHz) begins `start` seconds after them.

    Args:
        gap: seconds between the times of its two halves.
    """
    av = importlib.import_module("av")
    with av.open(str(path), "w") as container:
        pictures, sound = container.add_stream("mpeg4", rate=5), container.add_stream("aac", rate=16_000)
        pictures.width, pictures.height, pictures.pix_fmt = 64, 64, "yuv420p"
        sound.layout = "mono"
        for _ in range(20):
            container.mux(pictures.encode(av.VideoFrame(64, 64, "yuv420p")))
        for first in range(0, len(samples) - FRAME + 1, FRAME):
            frame = av.AudioFrame.from_ndarray(samples[None, first : first + FRAME].copy(), "fltp", "mono")
            frame.sample_rate, frame.pts = 16_000, first + round(start * 16_000)
            if first > len(samples) / 2:
                frame.pts += round(gap * 16_000)
            container.mux(sound.encode(frame))
        container.mux(sound.encode())
        container.mux(pictures.encode())
