"""Workers on a Ray cluster, with the interface of `worker_pool.WorkerPool`."""

import os
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

from finetune.core.extras import require
from finetune.core.worker_pool import WorkerDied

Item = TypeVar("Item")
Result = TypeVar("Result")


class RayPool:
    """One worker for each core of a Ray cluster: that of `RAY_ADDRESS`, or else one that starts on this machine.

    All machines need this package, and the files of the calls under the same paths.

    Attributes:
        workers: the cores of the cluster when the pool was made.

    Raises:
        MissingExtraError: Ray is not installed.
    """

    def __init__(self) -> None:
        self._ray: Any = require("ray", extra="ray")
        self._owner = not self._ray.is_initialized()
        if self._owner:
            self._ray.init(address=os.environ.get("RAY_ADDRESS"), include_dashboard=False, log_to_driver=False)
        self.workers = max(1, int(self._ray.cluster_resources().get("CPU", 1)))
        self._running = set[Any]()

    def __enter__(self) -> "RayPool":
        return self

    def __exit__(self, *_: object) -> None:
        """Cancels what still runs; ends a cluster that this pool has started, and leaves another one."""
        for reference in list(self._running):
            self._ray.cancel(reference, force=True)
        if self._owner:
            self._ray.shutdown()

    def submit(self, function: Callable[[Item], Result], item: Item) -> "Future[Result]":
        """Starts `function(item)` on a free core; see `WorkerPool.submit`."""
        reference = self._ray.remote(num_cpus=1, max_retries=1)(function).remote(item)
        self._running.add(reference)
        outcome = Future[Result]()

        def finish(done: "Future[Result]") -> None:
            self._running.discard(reference)
            if not outcome.set_running_or_notify_cancel():
                return
            error = done.exception()
            if error is None:
                outcome.set_result(done.result())
            elif isinstance(error, self._ray.exceptions.RayTaskError):
                outcome.set_exception(error.cause)
            else:
                reason = next(iter(str(error).splitlines()), type(error).__name__)
                outcome.set_exception(WorkerDied(f"a worker of Ray ended: {reason}"))

        reference.future().add_done_callback(finish)
        return outcome
