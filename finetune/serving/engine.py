"""Transcribes uploads: finds their windows, loads them ahead of the scheduler, yields results in order.

Reading and decoding files happens in a few threads beside the event loop, transcribing in the thread of the scheduler.
"""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TypeVar

from finetune.core.options import TranscribeOptions
from finetune.core.serve_options import ServeOptions
from finetune.data.audio_file import open_audio
from finetune.data.manifest import Utterance
from finetune.inference.encode import Waveform
from finetune.inference.recordings import Job, activity_detector, open_recording
from finetune.inference.window_batches import Result, Window
from finetune.serving.errors import ApiError
from finetune.serving.models import ServedModel
from finetune.serving.scheduler import Observer, Scheduler, Task
from finetune.serving.uploads import Upload

READERS = 4  # threads that read files
LOADED_TOGETHER = 4  # windows whose samples are read at once, from a file that is opened once

T = TypeVar("T")


class Engine:
    """What all requests share: the queue of windows and the threads that read files.

    Args:
        options: of the server.
        observer: receives the figures of each batch.
    """

    def __init__(self, options: ServeOptions, observer: Observer | None = None) -> None:
        self._max_audio, self._batch_seconds = options.max_audio, options.batch_seconds
        self.scheduler = Scheduler(options.batch_seconds, observer)
        self._readers = ThreadPoolExecutor(READERS, "reader")

    def start(self) -> None:
        self.scheduler.start()

    def close(self) -> None:
        self.scheduler.stop()
        self._readers.shutdown(wait=False, cancel_futures=True)

    async def open(self, upload: Upload, model: ServedModel, options: TranscribeOptions) -> Job:
        """Finds the windows of an upload.

        Raises:
            ApiError: more audio than the server accepts.
            DataError: the audio cannot be read.
            ModelError: the prompt is too long or contains a special token.
        """
        return await self._read(partial(self._open, upload, model, options))

    async def results(self, job: Job, model: ServedModel, request: object = None) -> AsyncGenerator[Result, None]:
        """The result of each window, in order. Ending the iteration drops the windows that still wait.

        Args:
            job: the recording.
            model: transcribes it.
            request: what the scheduler expects; it stops expecting it when the first windows wait.

        Raises:
            DataError: the audio can no longer be read.
        """
        task = Task(model)
        in_batch = int(self._batch_seconds / job.options.decoding.max_window)
        ahead = 2 * max(1, in_batch)  # one batch is computed, one is ready
        waiting: deque[asyncio.Future[Result]] = deque()
        try:
            step = min(LOADED_TOGETHER, ahead)
            for start in range(0, len(job.windows), step):
                windows = job.windows[start : start + step]
                samples = await self._read(partial(job.load, windows))
                for window, wave in zip(windows, samples, strict=True):
                    waiting.append(asyncio.wrap_future(self.scheduler.add(task, _loaded(job, window, wave))))
                self.scheduler.arrived(request)
                while len(waiting) >= ahead:
                    job.results.append(await waiting.popleft())
                    yield job.results[-1]
            while waiting:
                job.results.append(await waiting.popleft())
                yield job.results[-1]
        finally:
            self.scheduler.cancel(task)
            for future in waiting:
                future.cancel()

    async def _read(self, function: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._readers, function)

    def _open(self, upload: Upload, model: ServedModel, options: TranscribeOptions) -> Job:
        model.check(options)
        with open_audio(upload) as file:
            self._check_length(file.frames / file.samplerate)
        detect = activity_detector(options.vad, self._check_length)  # the header of a file can be wrong
        (job,) = open_recording(upload, options, model.network.profile, detect)
        if job.error:
            raise job.error
        return job

    def _check_length(self, seconds: float) -> None:
        if seconds > self._max_audio:
            limit = f"{self._max_audio:g} s of audio; the server can accept more with --max-audio"
            raise ApiError(413, f"the file has {seconds:.0f} s of audio, more than {limit}", "file", "audio_too_long")


def _loaded(job: Job, window: Utterance, wave: Waveform) -> Window:
    """A window whose samples are in memory; the parts of a window that is cut again are read from the file."""

    def load(chosen: Sequence[Utterance]) -> list[Waveform]:
        return [wave] if len(chosen) == 1 and chosen[0] is window else job.load(chosen)

    return Window(window, job.options, load)
