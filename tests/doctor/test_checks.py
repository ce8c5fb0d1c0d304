"""`finetune doctor` in broken environments: each is found, with a cure."""

import json
import os
import resource
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest
import requests

from finetune.cli import doctor
from finetune.cli.main import main
from finetune.data.audio import load_audio
from finetune.data.features import log_mel
from finetune.doctor import hardware, loopback, network, packages, sound
from finetune.doctor.checks import all_checks, run_checks
from finetune.doctor.finding import Finding, Status
from finetune.doctor.loopback import PROGRAM, check_loopback
from finetune.doctor.training_step import check_training_step

MODEL = doctor.EMBEDDED_MODEL


def other_version(name: str, version: str) -> packages.Version:
    return lambda package: version if package == name else metadata.version(package)


def missing(name: str) -> packages.Version:
    def version(package: str) -> str:
        if package == name:
            raise metadata.PackageNotFoundError(package)
        return metadata.version(package)

    return version


def test_an_old_python_fails() -> None:
    found = packages.check_python("3.10.4")
    assert found.status is Status.FAIL and "3.10.4" in found.detail and "Python" in found.cure
    assert packages.check_python().status is Status.PASS


def test_an_old_or_missing_package_fails_with_the_pip_command() -> None:
    old = packages.check_packages(other_version("transformers", "4.57.1"))
    assert old.status is Status.FAIL and "transformers is 4.57.1" in old.detail and "pip install" in old.cure
    absent = packages.check_packages(missing("peft"))
    assert absent.status is Status.FAIL and "peft is not installed" in absent.detail
    assert old.cure.startswith("pip install --upgrade 'transformers") and "'peft" in absent.cure
    assert "transformers" not in absent.detail  # only what is wrong


def test_a_package_of_an_extra_may_be_missing() -> None:
    assert packages.check_packages(missing("gguf")).status is Status.PASS


def test_a_broken_torchaudio_fails_and_a_working_one_does_not() -> None:
    version = other_version("torchaudio", "2.11.0")
    broken = packages.check_unneeded(version, lambda module: "OSError: libcudart.so.13: cannot open")
    assert broken.status is Status.FAIL and broken.cure == "they are not needed: pip uninstall torchaudio"
    assert "libcudart" in broken.detail
    assert packages.check_unneeded(version, lambda module: "").status is Status.PASS


def test_an_import_error_is_the_last_line_of_the_other_process() -> None:
    assert packages.import_error("json") == ""
    assert packages.import_error("no_such_module_of_anyone") == (
        "ModuleNotFoundError: No module named 'no_such_module_of_anyone'"
    )


def test_bitsandbytes_without_a_gpu_warns() -> None:
    version = other_version("bitsandbytes", "0.49")
    assert packages.check_quantization(0, version).status is Status.WARN
    assert packages.check_quantization(1, version).status is Status.PASS
    assert packages.check_quantization(0, missing("bitsandbytes")).status is Status.SKIP


@pytest.mark.parametrize(("build", "words"), [(None, "CPU build"), ("13.0", "finds no GPU")])
def test_a_driver_without_a_gpu_in_torch_fails(build: str | None, words: str) -> None:
    found = hardware.check_gpu(0, True, build)
    assert found.status is Status.FAIL and words in found.detail and found.cure
    assert hardware.check_gpu(0, False, build).status is Status.SKIP


def test_little_memory_warns() -> None:
    assert hardware.check_memory(4 * hardware.GIB).status is Status.WARN
    assert hardware.check_memory(32 * hardware.GIB).status is Status.PASS


def test_a_full_disk_fails_and_a_small_one_warns(tmp_path: Path) -> None:
    assert hardware.check_disk(tmp_path, 10 << 20).status is Status.FAIL
    assert hardware.check_disk(tmp_path, 5 * hardware.GIB).status is Status.WARN
    assert hardware.check_disk(tmp_path, 100 * hardware.GIB).status is Status.PASS
    assert hardware.check_disk(tmp_path / "new" / "runs", 100 * hardware.GIB).status is Status.PASS, "a run creates it"
    (tmp_path / "file").touch()
    wrong = hardware.check_disk(tmp_path / "file")
    assert wrong.status is Status.FAIL and "file" in wrong.detail


def test_a_temporary_folder_without_space_fails(tmp_path: Path) -> None:
    assert hardware.check_temporary(tmp_path).status is Status.PASS
    found = hardware.check_temporary(tmp_path / "gone")
    assert found.status is Status.FAIL and "TMPDIR" in found.cure


def test_little_shared_memory_fails_with_several_gpus_only(tmp_path: Path) -> None:
    assert hardware.check_shared_memory(2, tmp_path, 64 << 20).status is Status.FAIL
    assert hardware.check_shared_memory(1, tmp_path, 64 << 20).status is Status.PASS
    assert hardware.check_shared_memory(2, tmp_path, 8 << 30).status is Status.PASS
    assert hardware.check_shared_memory(2, tmp_path / "gone").status is Status.SKIP


def test_few_open_files_warn() -> None:
    assert hardware.check_open_files(256).status is Status.WARN
    assert hardware.check_open_files(resource.RLIM_INFINITY).status is Status.PASS


def test_a_format_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    def without_mp3(path: Path) -> sound.Wave:
        if path.suffix == ".mp3":
            raise OSError("no decoder")
        return load_audio(path)

    found = sound.check_decoding(tmp_path, without_mp3)
    assert found.status is Status.FAIL and found.detail == "mp3: OSError: no decoder" and "soundfile" in found.cure
    assert sound.check_decoding(tmp_path).status is Status.PASS


def test_samples_of_another_rate_are_found(tmp_path: Path) -> None:
    found = sound.check_decoding(tmp_path, lambda path: load_audio(path)[::2])
    assert found.status is Status.FAIL and "wav: other samples" in found.detail


def test_a_wrong_resampler_fails() -> None:
    nearest = lambda wave, old, new, quality: wave[np.arange(0, len(wave), old / new).astype(int)] * 0.9  # noqa: E731
    assert sound.check_resampling(nearest).status is Status.FAIL
    assert sound.check_resampling().status is Status.PASS


def test_other_features_fail() -> None:
    assert sound.check_front_end().status is Status.PASS
    assert sound.check_front_end(lambda wave: log_mel(wave) + 0.01).status is Status.FAIL


@pytest.mark.parametrize(
    ("program", "words"),
    [
        ("echo started; echo 'RuntimeError: connection refused' >&2; exit 1", "connection refused"),
        ("echo 'ImportError: no torch' >&2; exit 1", "no torch"),
        ("echo started; exec sleep 60", "no answer in 1 s"),
        ("test $RANK = 0 || { echo 'ImportError: broken' >&2; exit 1; }; exec sleep 60", "broken"),
        ("echo started; echo '[2.0, 2.0, 2.0, 2.0]'", "[2.0, 2.0, 2.0, 2.0]"),
        ("echo started", "started"),
    ],
)
def test_processes_that_do_not_reach_each_other_fail(program: str, words: str) -> None:
    limit = 1.0 if "sleep" in program else 30.0
    found = check_loopback(0, ("sh", "-c", program), limit, lambda process: 0.4 * limit)
    assert found.status is Status.FAIL and words in found.detail and found.check == "processes (gloo)"
    assert "firewall" in found.cure


@pytest.mark.parametrize(
    ("program", "waited"),
    [
        ("exec sleep 60", 0.0),
        ("echo started; exec sleep 60", 0.3),
        ("test $RANK = 0 && echo started; exec sleep 60", 0.0),
        ("test $RANK = 0 && echo started && echo '[3.0, 3.0, 3.0, 3.0]' && exit; exec sleep 60", 0.0),
    ],
)
def test_processes_that_get_no_processor_are_a_warning(program: str, waited: float) -> None:
    """They have not started in time, or have waited for a processor most of the time."""
    found = check_loopback(0, ("sh", "-c", program), 0.5, lambda process: waited)
    assert found.status is Status.WARN and "the machine was too busy to answer" in found.detail
    assert "rerun" in found.cure and "firewall" not in found.cure


def test_processes_that_exchange_a_tensor_pass() -> None:
    program = "echo started; echo '[3.0, 3.0, 3.0, 3.0]'"
    assert check_loopback(0, ("sh", "-c", program)).status is Status.PASS
    assert "started" in PROGRAM and loopback.waiting_seconds(os.getpid()) >= 0 == loopback.waiting_seconds(-1)


def test_a_hub_that_does_not_answer_warns_and_offline_mode_asks_nobody() -> None:
    asked = list[str]()

    def silent(address: str) -> str:
        asked.append(address)
        return "ConnectTimeout"

    found = network.check_hub({"HF_ENDPOINT": "https://hub.example"}, silent)
    assert found.status is Status.WARN and "ConnectTimeout" in found.detail and "HF_HUB_OFFLINE" in found.cure
    assert network.check_hub({"HF_HUB_OFFLINE": "1"}, silent).status is Status.PASS
    assert asked == ["https://hub.example"]


def test_answers_returns_the_reason() -> None:
    assert network.answers("http://127.0.0.1:9") == requests.ConnectionError.__name__


def test_a_cache_that_cannot_be_written_fails() -> None:
    found = network.check_hub_cache({"HF_HOME": "~nobody-of-this-name/cache"})
    assert found.status is Status.FAIL and "no home folder" in found.detail
    found = network.check_hub_cache({"HF_HOME": "/proc/no-such-cache"})
    assert found.status is Status.FAIL and "HF_HOME" in found.cure


def test_the_tracker_needs_a_key_unless_offline() -> None:
    assert network.check_tracker({}, lambda: False).status is Status.SKIP
    assert network.check_tracker({"WANDB_API_KEY": "k"}, lambda: False).status is Status.PASS
    assert network.check_tracker({"WANDB_MODE": "offline"}, lambda: False).status is Status.PASS
    assert network.check_tracker({"WANDB_MODE": "online"}, lambda: True).status is Status.PASS


@pytest.mark.parametrize("mode", ["bogus", "Offline", "0"])
def test_a_mode_that_wandb_refuses_is_a_warning(mode: str) -> None:
    found = network.check_tracker({"WANDB_MODE": mode, "WANDB_API_KEY": "k"}, lambda: True)
    assert found.status is Status.WARN and repr(mode) in found.detail and "offline" in found.cure


def test_the_training_step_runs_and_a_damaged_model_fails(tmp_path: Path) -> None:
    good = check_training_step(MODEL, "cpu")
    assert good.status is Status.PASS and "on cpu" in good.detail, good
    for path in MODEL.iterdir():
        (tmp_path / path.name).symlink_to(path)
    (tmp_path / "model.safetensors").unlink()
    (tmp_path / "model.safetensors").write_bytes(b"\0" * 100)
    assert check_training_step(tmp_path, "cpu").status is Status.FAIL
    assert check_training_step(tmp_path / "gone").status is Status.SKIP


def test_a_check_that_raises_has_failed_and_the_others_run() -> None:
    def check_nothing() -> Finding:
        raise ZeroDivisionError("x")

    first, second = run_checks([check_nothing, packages.check_python])
    assert first.status is Status.FAIL and first.check == "nothing" and "ZeroDivisionError: x" in first.detail
    assert second.status is Status.PASS


def test_all_checks_have_different_names(tmp_path: Path) -> None:
    checks = all_checks(tmp_path, tmp_path)
    assert len(checks) == len(set(map(str, checks))) > 15


def test_the_command_prints_json_and_its_exit_code_is_that_of_the_worst(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    code = main(["doctor", "--json", "--runs", str(tmp_path / "file")])
    result = json.loads(capsys.readouterr().out)
    statuses = {row["check"]: row["status"] for row in result["findings"]}
    assert code == 1 and statuses["disk"] == "FAIL" and result["counts"]["FAIL"] >= 1
    assert statuses["front end"] == statuses["decoding"] == "PASS"
    assert sum(result["counts"].values()) == len(statuses)


@pytest.mark.parametrize("error", ["ImportError", "OSError"])  # OSError: torch does not find a file of CUDA
def test_without_torch_the_command_says_what_to_install(tmp_path: Path, error: str) -> None:
    (tmp_path / "torch.py").write_text(f"raise {error}('no torch here')")
    command = [sys.executable, "-m", "finetune", "doctor", "--json"]
    environment = {"PYTHONPATH": f"{tmp_path}:{Path(doctor.__file__).parents[2]}", "PATH": "/usr/bin:/bin"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    (found,) = json.loads(done.stdout)["findings"]
    assert done.returncode == 1 and found["status"] == "FAIL"
    assert "no torch here" in found["detail"] and "pip install" in found["cure"]


def test_an_old_package_that_cannot_be_imported_is_named_with_its_version(tmp_path: Path) -> None:
    """Such as accelerate 0.30, which PEFT cannot import: the checks themselves need it."""
    (tmp_path / "torch.py").write_text("raise ImportError('cannot import name x')")
    (tmp_path / "accelerate-0.30.0.dist-info").mkdir()
    (tmp_path / "accelerate-0.30.0.dist-info" / "METADATA").write_text("Name: accelerate\nVersion: 0.30.0\n")
    command = [sys.executable, "-m", "finetune", "doctor", "--json"]
    environment = {"PYTHONPATH": f"{tmp_path}:{Path(doctor.__file__).parents[2]}", "PATH": "/usr/bin:/bin"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    (found,) = json.loads(done.stdout)["findings"]
    assert done.returncode == 1 and "accelerate is 0.30.0, but >=" in found["detail"]
    assert found["cure"].startswith("pip install --upgrade 'accelerate>=")
