"""llama.cpp, through the server of `xllamacpp`: `gguf` of the request has the two GGUF files."""

import base64
import json
import os
import struct
import urllib.request
from pathlib import Path

from runner_protocol import serve

RATE = 16000
CONTEXT = 4096
SMALL = 100e6  # bytes; threads wait for each other by spinning, which costs a small model more than it gains


def load(request):
    """The address of a server in this process, and its placeholder for audio."""
    import xllamacpp

    folder = Path(request["gguf"])
    params = xllamacpp.CommonParams()
    params.model.path = str(next(folder.glob("model-*.gguf")))
    params.mmproj.path = str(next(folder.glob("mmproj-*.gguf")))
    params.n_ctx, params.n_parallel, params.port, params.warmup = CONTEXT, 1, 0, False
    params.cache_type_k = params.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
    params.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
    threads = 1 if Path(params.model.path).stat().st_size < SMALL else os.cpu_count()
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = threads
    server = xllamacpp.Server(params)
    with urllib.request.urlopen(f"{server.listening_address}/props") as answer:
        marker = json.load(answer).get("media_marker", "<__media__>")
    return server, marker


def wav(samples):
    """A WAV file with float32 samples."""
    data = samples.astype("<f4").tobytes()
    head = struct.pack(
        "<4sI4s4sIHHIIHH4sI",
        b"RIFF",
        36 + len(data),
        b"WAVE",
        b"fmt ",
        16,
        3,
        1,
        RATE,
        RATE * 4,
        4,
        32,
        b"data",
        len(data),
    )
    return head + data


def transcribe(loaded, samples, clip, limit):
    """Greedy text."""
    server, marker = loaded
    body = {
        "prompt": {
            "prompt_string": clip["prompt"].replace("<|audio|>", marker),
            "multimodal_data": [base64.b64encode(wav(samples)).decode()],
        },
        "temperature": 0,
        "n_predict": limit,
        "cache_prompt": False,
    }
    request = urllib.request.Request(
        f"{server.listening_address}/completion", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request) as answer:
        return json.load(answer)["content"].strip()


if __name__ == "__main__":
    serve(load, transcribe, ["xllamacpp"])
