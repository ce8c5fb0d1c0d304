"""The memory that a process may use is the lowest of the limits of its control groups."""

from pathlib import Path

from finetune.core.memory_limit import memory_limit

GIB = 1 << 30


def limit_of(folder: Path, own: str, limits: dict[str, str]) -> int:
    for name, text in limits.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    (folder / "own").write_text(own)
    return memory_limit(folder, folder / "own")


def test_the_limit_of_a_container_a_job_and_a_parent_group(tmp_path: Path) -> None:
    everything = memory_limit(tmp_path / "none", tmp_path / "none")
    assert everything > GIB
    container = {"memory.max": f"{GIB}\n"}
    assert limit_of(tmp_path / "container", "0::/\n", container) == GIB
    assert limit_of(tmp_path / "docker", "0::/docker/of/the/host\n", container) == GIB
    job = {"memory.max": "max", "slurm/job_1/memory.max": str(GIB), "slurm/job_1/step_0/memory.max": "max"}
    assert limit_of(tmp_path / "job", "0::/slurm/job_1/step_0\n", job) == GIB
    first = {"memory/memory.limit_in_bytes": "9223372036854771712", "memory/slurm/memory.limit_in_bytes": str(GIB)}
    assert limit_of(tmp_path / "v1", "5:cpuset:/slurm\n4:memory:/slurm\n", first) == GIB
    assert limit_of(tmp_path / "max", "0::/\n", {"memory.max": "max"}) == everything
