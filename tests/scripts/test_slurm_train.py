"""`scripts/slurm_train` as a process, with stand-ins for srun, scontrol and accelerate."""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "slurm_train"
STAND_INS = {
    # A task for each node; its exit code is the highest one.
    "srun": """
while [[ $1 == --* ]]; do echo "$1" >> "$LOGS/srun"; shift; done
for node in $(seq 0 $((SLURM_NNODES - 1))); do
  SLURM_NODEID=$node "$@" &
  tasks+=($!)
  echo $! > "$LOGS/part"
  mv "$LOGS/part" "$LOGS/task$node"
done
code=0
for task in "${tasks[@]}"; do wait "$task"; last=$?; ((last > code)) && code=$last; done
exit $code
""",
    "scontrol": """
if [[ $1 == show ]]; then printf 'node0\\nnode1\\n'; else echo "$@" >> "$LOGS/scontrol"; fi
""",
    # As the launcher: after a signal it waits for its processes, then ends with 1.
    "accelerate": """
printf '%s\\n' "$0" "$@" > "$LOGS/launched$SLURM_NODEID"
echo "$TORCH_ELASTIC_SHUTDOWN_TIMEOUT" > "$LOGS/timeout"
trap 'sleep 0.2; echo saved >> "$LOGS/checkpoint"; exit ${AFTER_SIGNAL:-1}' TERM
: > "$LOGS/ready$SLURM_NODEID"
[[ $END == wait ]] || exit $END
while :; do sleep 0.02; done
""",
}
Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def start(tmp_path: Path) -> Start:
    """Starts the script in `tmp_path` with what the launcher does: an exit code, or `wait` for a signal."""
    for name, body in {**STAND_INS, "python": STAND_INS["accelerate"]}.items():
        path = tmp_path / "bin" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"#!/usr/bin/env bash\n{body}")
        path.chmod(0o755)

    def call(end: str, recipe: str = "my recipe's.yaml", **variables: str) -> subprocess.Popen[str]:
        environment = {
            "PATH": f"{tmp_path / 'bin'}:/usr/bin:/bin",
            "LOGS": str(tmp_path),
            "END": end,
            "SLURM_JOB_ID": "1234567",
            "SLURM_JOB_NODELIST": "node[0-1]",
            "SLURM_NNODES": "2",
            "SLURM_GPUS_ON_NODE": "4",
            "SLURM_SUBMIT_DIR": str(tmp_path),
            **variables,
        }
        return subprocess.Popen(
            [SCRIPT, recipe], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    return call


def await_file(path: Path) -> str:
    deadline = time.monotonic() + 60
    while not path.exists():
        assert time.monotonic() < deadline, path.name
        time.sleep(0.01)
    return path.read_text()


def stop_at_time_limit(folder: Path, nodes: int = 2) -> None:
    """Signals the task of each node, as Slurm does, and not what it has started."""
    for node in range(nodes):
        await_file(folder / f"ready{node}")
    for node in range(nodes):
        os.kill(int(await_file(folder / f"task{node}")), signal.SIGTERM)


def requeued(folder: Path) -> list[str]:
    path = folder / "scontrol"
    return path.read_text().splitlines() if path.exists() else []


def test_the_directives_requeue_append_and_signal_the_tasks() -> None:
    lines = [line for line in SCRIPT.read_text().splitlines() if line.startswith("#SBATCH")]
    options: Mapping[str, str] = dict(line.removeprefix("#SBATCH --").partition("=")[::2] for line in lines)
    assert "requeue" in options and options["open-mode"] == "append" and options["ntasks-per-node"] == "1"
    name, seconds = options["signal"].split("@")  # without B: the tasks get it, not the script
    assert name == "TERM" and int(seconds) >= 120
    assert os.access(SCRIPT, os.X_OK)


def test_each_node_launches_its_part_and_the_recipe_is_one_argument(start: Start, tmp_path: Path) -> None:
    assert start("0").wait() == 0
    for node in ("0", "1"):
        args = (tmp_path / f"launched{node}").read_text().splitlines()[1:]
        assert args[0] == "launch" and args[-4:] == ["-m", "finetune", "train", "my recipe's.yaml"]
        options = dict(zip(args[2:-4:2], args[3:-4:2], strict=True))
        assert args[1] == "--multi_gpu" and options["--num_processes"] == "8" and options["--num_machines"] == "2"
        assert options["--machine_rank"] == node and options["--main_process_ip"] == "node0"
        assert int(options["--max_restarts"]) > 0 and 1024 < int(options["--main_process_port"]) < 32768
    assert requeued(tmp_path) == [] and int((tmp_path / "timeout").read_text()) > 30
    assert "--kill-on-bad-exit=0" in (tmp_path / "srun").read_text()


def test_one_gpu_trains_without_a_launcher(start: Start, tmp_path: Path) -> None:
    assert start("0", SLURM_NNODES="1", SLURM_GPUS_ON_NODE="1").wait() == 0
    program, *args = (tmp_path / "launched0").read_text().splitlines()
    assert program.endswith("/python") and args == ["-m", "finetune", "train", "my recipe's.yaml"]


@pytest.mark.parametrize("nodes", ["1", "2"])
def test_a_stop_at_the_time_limit_saves_and_requeues(start: Start, tmp_path: Path, nodes: str) -> None:
    job = start("wait", SLURM_NNODES=nodes, SLURM_RESTART_COUNT="3")
    stop_at_time_limit(tmp_path, int(nodes))
    assert job.wait() == 0 and requeued(tmp_path) == ["requeue 1234567"]
    assert (tmp_path / "checkpoint").read_text().split() == ["saved"] * int(nodes)


def test_a_signal_before_the_training_starts_requeues_too(start: Start, tmp_path: Path) -> None:
    job = start("wait")
    for node in range(2):
        os.kill(int(await_file(tmp_path / f"task{node}")), signal.SIGTERM)
    assert job.wait() == 0 and requeued(tmp_path) == ["requeue 1234567"]


def test_an_error_does_not_requeue(start: Start, tmp_path: Path) -> None:
    assert start("1").wait() == 1 and requeued(tmp_path) == []


def test_a_training_that_completes_after_the_signal_does_not_requeue(start: Start, tmp_path: Path) -> None:
    job = start("wait", AFTER_SIGNAL="0")
    stop_at_time_limit(tmp_path)
    assert job.wait() == 0 and requeued(tmp_path) == []


@pytest.mark.parametrize(("restarts", "limit", "again"), [("50", "", False), ("2", "2", False), ("1", "2", True)])
def test_the_number_of_requeues_has_a_limit(
    start: Start, tmp_path: Path, restarts: str, limit: str, again: bool
) -> None:
    job = start("wait", SLURM_RESTART_COUNT=restarts, FINETUNE_MAX_REQUEUES=limit)
    stop_at_time_limit(tmp_path)
    errors = job.communicate()[1]
    assert bool(requeued(tmp_path)) == again and job.returncode == (0 if again else 143)
    assert (f"has restarted {restarts} times" in errors) != again


def test_a_cancelled_job_is_not_requeued(start: Start, tmp_path: Path) -> None:
    """`scancel` signals the script too."""
    job = start("wait")
    for node in range(2):
        await_file(tmp_path / f"ready{node}")
    job.terminate()
    stop_at_time_limit(tmp_path)
    job.communicate()
    assert job.returncode == -signal.SIGTERM and requeued(tmp_path) == []


def test_without_gpus_it_says_what_to_request(start: Start, tmp_path: Path) -> None:
    job = start("0", SLURM_GPUS_ON_NODE="")
    assert "sbatch --nodes N --gpus-per-node G" in job.communicate()[1] and job.returncode == 1
