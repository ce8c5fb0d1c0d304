"""The files of deploy/ fit to the command, its options and its routes."""

import re
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from finetune.cli.main import COMMANDS, _parser
from finetune.core.serve_options import API_KEYS, ServeOptions

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
DOCKERFILE = (DEPLOY / "Dockerfile").read_text(encoding="utf-8")
COMPOSE = yaml.safe_load((DEPLOY / "compose.yaml").read_text(encoding="utf-8"))
OBJECTS = {item["kind"]: item for item in yaml.safe_load_all((DEPLOY / "kubernetes.yaml").read_text(encoding="utf-8"))}
POD = OBJECTS["Deployment"]["spec"]["template"]["spec"]
UNIT = (DEPLOY / "finetune-serve.service").read_text(encoding="utf-8")
NGINX = (DEPLOY / "nginx.conf").read_text(encoding="utf-8")
PORT = 8000


def unit(key: str) -> str:
    return re.findall(rf"^{key}=(.*)$", UNIT, re.M)[-1]


def seconds(text: str) -> int:
    return int(text.removesuffix("s"))


CALLS = {
    "Dockerfile": yaml.safe_load(re.findall(r"^CMD (\[.*\])$", DOCKERFILE, re.M)[-1]),
    "compose": COMPOSE["services"]["serve-cpu"]["command"],
    "kubernetes": POD["containers"][0]["args"],
    "systemd": shlex.split(unit("ExecStart"))[2:],
}


@pytest.mark.parametrize("name", CALLS)
def test_the_command_takes_the_arguments(name: str) -> None:
    args = _parser(COMMANDS).parse_args(["serve", *CALLS[name]])
    assert args.port == PORT and args.model.startswith("/")
    assert (args.host == "127.0.0.1") == (name == "systemd"), "in a container, the network of the host is elsewhere"


def test_keys_are_needed_wherever_the_server_can_be_reached() -> None:
    assert API_KEYS in COMPOSE["services"]["serve-cpu"]["environment"]
    assert "?" in COMPOSE["services"]["serve-cpu"]["environment"][API_KEYS], "compose refuses to start without keys"
    assert POD["containers"][0]["env"][0]["name"] == API_KEYS
    assert "--api-keys" in CALLS["systemd"]


def test_started_requests_have_their_time_after_sigterm() -> None:
    drain = ServeOptions.drain
    pre_stop = int(POD["containers"][0]["lifecycle"]["preStop"]["exec"]["command"][1])
    assert seconds(COMPOSE["services"]["serve-cuda"]["stop_grace_period"]) > drain + 5
    assert POD["terminationGracePeriodSeconds"] > pre_stop + drain + 5
    assert int(unit("TimeoutStopSec")) > drain + 5
    assert unit("SuccessExitStatus") == "143"


def test_probes_and_metrics_are_routes(server: Any) -> None:
    import httpx

    container, annotations = POD["containers"][0], OBJECTS["Deployment"]["spec"]["template"]["metadata"]["annotations"]
    probes = [container[f"{name}Probe"]["httpGet"] for name in ("startup", "readiness", "liveness")]
    paths = [*(probe["path"] for probe in probes), annotations["prometheus.io/path"]]
    paths += re.findall(r"127\.0\.0\.1:8000(/\w+)", DOCKERFILE)
    assert len(paths) == 5
    for path in paths:
        assert httpx.get(server.url + path).status_code == 200, path
    assert {probe["port"] for probe in probes} == {container["ports"][0]["name"]}
    assert container["ports"][0]["containerPort"] == PORT == int(annotations["prometheus.io/port"])


def test_objects_of_kubernetes_select_the_pods() -> None:
    labels = OBJECTS["Deployment"]["spec"]["template"]["metadata"]["labels"]
    assert OBJECTS["Deployment"]["spec"]["selector"]["matchLabels"] == labels
    assert OBJECTS["Service"]["spec"]["selector"] == labels
    assert OBJECTS["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"] == labels
    volumes = {volume["name"] for volume in POD["volumes"]}
    assert {mount["name"] for mount in POD["containers"][0]["volumeMounts"]} == volumes


def test_the_file_system_of_the_container_can_be_read_only() -> None:
    """Uploads go to /tmp, downloads to the cache, corrections to their folder."""
    mounts = {mount["mountPath"]: mount.get("readOnly", False) for mount in POD["containers"][0]["volumeMounts"]}
    assert mounts == {"/model": True, "/tmp": False, "/cache": False}
    service = COMPOSE["services"]["serve-cpu"]
    assert service["read_only"] and service["tmpfs"] == ["/tmp:size=2g"]
    assert [volume.split(":")[-2:] for volume in service["volumes"]][1:] == [
        ["corrections", "/corrections"],
        ["cache", "/cache"],
    ]
    assert "HF_HOME=/cache/" in DOCKERFILE and "/cache /corrections" in DOCKERFILE


def test_the_image_is_built_from_files_that_exist_and_are_sent() -> None:
    ignore = (DEPLOY / "Dockerfile.dockerignore").read_text(encoding="utf-8").split()
    sources = [name for line in re.findall(r"^COPY (?!--from)(.*)$", DOCKERFILE, re.M) for name in line.split()[:-1]]
    assert set(sources) == {name[1:] for name in ignore if name.startswith("!")}
    assert all((ROOT / name).exists() for name in sources)
    assert ignore[0] == "*", "nothing else is sent, such as runs and keys"
    assert re.search(r"^torch==", (ROOT / "constraints.txt").read_text(encoding="utf-8"), re.M)
    for name in ("serve-cpu", "serve-cuda"):
        build = COMPOSE["services"][name]["build"]
        assert (DEPLOY / build["context"] / build["dockerfile"]).resolve() == DEPLOY / "Dockerfile"
        assert set(build.get("args", {})) <= set(re.findall(r"^ARG (\w+)", DOCKERFILE, re.M))


def test_the_balancer_lets_through_what_the_server_takes() -> None:
    size = int(re.findall(r"client_max_body_size (\d+)m;", NGINX)[0]) << 20
    assert ServeOptions.max_upload <= size < 1.1 * ServeOptions.max_upload
    assert int(re.findall(r"proxy_read_timeout (\d+)s;", NGINX)[0]) > ServeOptions.deadline
    assert NGINX.count("{") == NGINX.count("}")


def test_systemd_accepts_the_unit(tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("no systemd-analyze on this machine")
    copy = tmp_path / "finetune-serve.service"
    copy.write_text(UNIT.replace("/opt/finetune/bin/finetune", "/bin/true"), encoding="utf-8")
    done = subprocess.run(["systemd-analyze", "verify", copy], capture_output=True, text=True)
    assert done.returncode == 0 and not done.stderr, done.stderr


def test_nginx_accepts_the_configuration(tmp_path: Path) -> None:
    if (nginx := shutil.which("nginx", path="/usr/sbin:/usr/local/sbin:/usr/bin")) is None:
        pytest.skip("no nginx on this machine")
    folders = "".join(
        f"{name}_temp_path {tmp_path}/{name};" for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    whole = f"events {{}} pid {tmp_path}/pid; error_log stderr; http {{ access_log off; {folders} {NGINX} }}"
    (tmp_path / "nginx.conf").write_text(whole, encoding="utf-8")
    done = subprocess.run([nginx, "-t", "-p", tmp_path, "-c", tmp_path / "nginx.conf"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
