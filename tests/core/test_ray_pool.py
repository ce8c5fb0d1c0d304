"""Workers on a Ray cluster of two machines that both run here."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from finetune.core.errors import DataError, MissingExtraError
from finetune.core.ray_pool import RayPool
from finetune.core.run_dir import RunDir
from finetune.core.worker_pool import WorkerDied
from finetune.data.audio import inspect_audio


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    ray = pytest.importorskip("ray")
    utils = pytest.importorskip("ray.cluster_utils")
    cluster = utils.Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    cluster.add_node(num_cpus=1)
    ray.init(address=cluster.address, log_to_driver=False)
    yield cluster
    ray.shutdown()
    cluster.shutdown()


def double(number: int) -> tuple[int, str]:
    import ray

    return 2 * number, ray.get_runtime_context().get_node_id()


def fail(text: str) -> None:
    raise DataError(text)


def die(_: int) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.engines
def test_results_and_errors_come_from_both_machines(cluster: Any) -> None:
    with RayPool() as pool:
        assert pool.workers == 2
        results = [future.result() for future in [pool.submit(double, number) for number in range(40)]]
        assert [result for result, _ in results] == [2 * number for number in range(40)]
        assert len({node for _, node in results}) == 2
        with pytest.raises(DataError, match="^the reason$"):
            pool.submit(fail, "the reason").result()
        with pytest.raises(WorkerDied, match="a worker of Ray ended"):
            pool.submit(die, 1).result()


@pytest.mark.engines
def test_prepare_on_ray_gives_the_files_of_prepare(cluster: Any, tmp_path: Path) -> None:
    from kill_prepare import outcome, run_once, write_corpus  # workers of Ray cannot import it

    write_corpus(tmp_path, 200)
    run_once(tmp_path, "local", inspect_audio)
    run_once(tmp_path, "ray", inspect_audio, engine="ray")
    assert outcome(RunDir(tmp_path / "local")) == outcome(RunDir(tmp_path / "ray"))


def test_without_ray_the_error_names_the_extra() -> None:
    try:
        import ray  # noqa: F401
    except ImportError:
        with pytest.raises(MissingExtraError, match=r"\[ray\]"):
            RayPool()
