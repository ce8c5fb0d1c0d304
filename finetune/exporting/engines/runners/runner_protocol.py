"""What all runners share: they read a request, answer it line by line, and state versions, time and memory.

A runner is a script for an engine's own environment: it imports the engine and the standard library, never this
toolkit. Usage: `python run_NAME.py REQUEST.json ANSWER.jsonl`.
"""

import json
import resource
import sys
import time


def serve(load, transcribe, packages, adapter_packages=()):
    """Answers the request.

    Args:
        load: function of the request; loads the model and returns it.
        transcribe: function of model, samples (N,) float32 at 16 kHz, clip (`prompt`: the rendered chat template with
            `<|audio|>`; `request`: its text after the audio; `tokens`: those before and after it) and the most tokens;
            returns the text.
        packages: names of the distributions whose versions are stated.
        adapter_packages: more of them if the request has an adapter.
    """
    from importlib.metadata import version

    import numpy as np

    with open(sys.argv[1], encoding="utf-8") as file:
        request = json.load(file)
    with open(sys.argv[2], "w", encoding="utf-8") as answer:
        packages = [*(adapter_packages if request.get("adapter") else ()), *packages]
        write(answer, {"versions": {name: version(name) for name in packages}})
        started = time.perf_counter()
        model = load(request)
        write(answer, {"load_seconds": time.perf_counter() - started})
        for clip in request["clips"]:
            samples = np.load(clip["samples"])
            started = time.perf_counter()
            text = transcribe(model, samples, clip, request["max_new_tokens"])
            write(answer, {"id": clip["id"], "text": text, "seconds": time.perf_counter() - started})
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        write(answer, {"peak_memory_bytes": peak * (1 if sys.platform == "darwin" else 1024), "complete": True})


def write(file, row):
    """One line, at once: what a process wrote before it crashed or hung can be read."""
    file.write(json.dumps(row) + "\n")
    file.flush()
