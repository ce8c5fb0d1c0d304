"""Compares `finetune serve` with vLLM serving the same export: formats, keywords, a long file, a load.

    scripts/engines/setup vllm
    python scripts/compare_servers.py runs/quickstart/export --rate 0.5 1 2

The servers run one after another on the cores of this process, as does the client. On a CPU vLLM computes in float32.

vLLM keeps what it computed for audio and prompts that it gets again. So no two requests of a load have equal audio, for
either server: at the first rate each clip is sent as it is. At each further rate, and if there are more requests than
clips, it is up to 2 % quieter and has some samples of silence before it, so the spoken words stay the same. The request
before the load and the long file have audio of another manifest, and the requests with keywords come after the load.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import httpx
import soundfile

from bench_longform import concatenate
from finetune.cli.bench_serve import format_load
from finetune.core.files import write_json
from finetune.core.options import LoadOptions
from finetune.data.audio import SAMPLE_RATE
from finetune.evaluation.endpoint import wav_bytes
from finetune.evaluation.utterances import read_utterances
from finetune.exporting.engines.environment import python_of
from finetune.metrics.wer import score
from finetune.serving.bench import load_uploads, measure_server
from finetune.serving.bench_uploads import Uploads

ROOT = Path(__file__).resolve().parents[1]
GENERAL = ROOT / "data/vocabulary/canary.jsonl"  # clips of general speech
PORT, NAME = 8790, "compared"
FORMATS = ("json", "text", "srt", "vtt", "verbose_json")
START = 600  # seconds
VLLM = [
    *("-m", "vllm.entrypoints.openai.api_server", "--dtype", "float32", "--enforce-eager", "--max-model-len", "2048"),
    *("--limit-mm-per-prompt", '{"audio": 1}', "--skip-mm-profiling", "--host", "127.0.0.1"),
]


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("export", type=Path)
    parser.add_argument("--manifest", type=Path, default=ROOT / "data/vocabulary/test.jsonl", help="clips of the load")
    parser.add_argument("--rate", type=float, nargs="+", default=[0.5, 1.0, 2.0])
    parser.add_argument("--requests", type=int, default=60)
    parser.add_argument("--keyword-clips", type=int, default=20)
    parser.add_argument("--minutes", type=float, default=9.9, help="vLLM takes 600 s at most")
    parser.add_argument("--silence", type=float, nargs=2, default=(0.2, 1.0), help="between two clips of the long file")
    parser.add_argument("--only", choices=("finetune", "vllm"))
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


def commands(export: Path) -> dict[str, list[str]]:
    name, port = str(export), str(PORT)
    return {
        "finetune": [sys.executable, "-m", "finetune", "serve", name, "--name", NAME, "--port", port],
        "vllm": [str(python_of("vllm")), *VLLM, "--model", name, "--served-model-name", NAME, "--port", port],
    }


def cpu_seconds(session: int) -> float:
    """Seconds of CPU that the processes of a session have used; other work on the machine does not change them much."""
    ticks = 0
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            fields = path.read_text().rpartition(")")[2].split()
            ticks += sum(map(int, fields[11:15])) if int(fields[3]) == session else 0
    return ticks / os.sysconf("SC_CLK_TCK")


@contextmanager
def running(command: Sequence[str]) -> Iterator[tuple[httpx.Client, int]]:
    """A server in a process of its own, its id, and a client; the process is stopped at the end."""
    environment = {"VLLM_CPU_KVCACHE_SPACE": "2", **os.environ, "HF_HUB_OFFLINE": "1"}
    if "vllm" in " ".join(command[1:3]):
        environment.pop("PYTHONPATH", None)
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=environment, start_new_session=True)
        client = httpx.Client(base_url=f"http://127.0.0.1:{PORT}", timeout=1800)
        try:
            started = time.monotonic()
            while not ready(client):
                if process.poll() is not None or time.monotonic() - started > START:
                    log.seek(0)
                    sys.exit(f"the server did not start: {log.read()[-3000:].decode(errors='replace')}")
                time.sleep(0.5)
            yield client, process.pid
        finally:
            client.close()
            os.killpg(process.pid, signal.SIGTERM)
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)


def ready(client: httpx.Client) -> bool:
    try:
        return client.get("/v1/models").is_success
    except httpx.HTTPError:
        return False


def send(client: httpx.Client, content: bytes, **form: Any) -> httpx.Response:
    files = {"file": ("clip.wav", content, "audio/wav")}
    return client.post("/v1/audio/transcriptions", files=files, data={"model": NAME, **form})


def text_of(response: httpx.Response) -> str | None:
    return str(response.json()["text"]).strip() if response.is_success else None


def formats(client: httpx.Client, content: bytes) -> dict[str, str]:
    """For each format, "ok" or why not."""
    found = {}
    for name in FORMATS:
        response = send(client, content, response_format=name)
        found[name] = (
            "ok" if response.is_success else f"HTTP {response.status_code}: {' '.join(response.text.split())[:120]}"
        )
    return found


def keywords(client: httpx.Client, clips: Sequence[Any]) -> dict[str, int]:
    """How many texts differ with five keywords in the request; 0 means that they are probably ignored."""
    changed = failed = 0
    for clip in clips:
        content = wav_bytes(clip)
        plain = send(client, content)
        listed = send(client, content, **{"keywords[]": clip.text.split()[:5]})
        changed += text_of(plain) != text_of(listed)
        failed += not listed.is_success
    return {"clips": len(clips), "changed": changed, "failed": failed}


def long_file(client: httpx.Client, args: argparse.Namespace) -> dict[str, Any]:
    """Joined clips of general speech in one request: errors against the texts of all clips."""
    source = argparse.Namespace(manifest=GENERAL, minutes=args.minutes, silence=args.silence, trim=False, noise=None)
    recording = concatenate(source)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "long.wav"
        soundfile.write(path, recording.wave, SAMPLE_RATE, subtype="PCM_16")
        content = path.read_bytes()
    started = time.perf_counter()
    response = send(client, content)
    seconds = time.perf_counter() - started
    result = {"audio_seconds": len(recording.wave) / SAMPLE_RATE, "megabytes": len(content) / 1e6, "seconds": seconds}
    if not response.is_success:
        return {**result, "error": f"HTTP {response.status_code}: {response.text[:300]}"}
    reference = " ".join(clip.text for clip in recording.clips)
    return {**result, "errors": asdict(score([reference], [text_of(response) or ""], "basic@2"))}


def load(uploads: Uploads, rate: float, options: LoadOptions) -> dict[str, Any]:
    result = measure_server(f"http://127.0.0.1:{PORT}/v1", uploads, [rate], options, NAME)
    print("\n".join(format_load(result)), flush=True)
    return asdict(result)


def main() -> None:
    args = parse_args()
    options = LoadOptions(requests=args.requests, clips=args.requests)
    clips = read_utterances(args.manifest)[: args.keyword_clips]
    first = wav_bytes(read_utterances(GENERAL)[0])
    results: dict[str, Any] = {}
    for name, command in commands(args.export.resolve()).items():
        if args.only not in (None, name):
            continue
        print(f"== {name}", flush=True)
        with running(command) as (client, session):
            results[name] = {"formats": formats(client, first)}
            print(json.dumps(results[name]["formats"], indent=2), flush=True)
            results[name]["load"], uploads = {}, load_uploads([args.manifest], options)
            for rate in args.rate:
                before = cpu_seconds(session)
                results[name]["load"][rate] = measured = load(uploads, rate, options)
                measured["cpu_seconds"] = cpu_seconds(session) - before
                print(f"{measured['cpu_seconds']:.1f} s of CPU", flush=True)
            results[name]["keywords"] = keywords(client, clips)
            print("keywords", results[name]["keywords"], flush=True)
            before = cpu_seconds(session)
            results[name]["long_file"] = measured = long_file(client, args)
            measured["cpu_seconds"] = cpu_seconds(session) - before
            print("long file", json.dumps(measured), flush=True)
        if args.json:
            write_json(args.json, results)


if __name__ == "__main__":
    main()
