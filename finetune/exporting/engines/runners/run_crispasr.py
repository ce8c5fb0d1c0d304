"""CrispASR, through the C functions of the package `crispasr`: `gguf` of the request is the folder of the GGUF file.

Its Python class writes the prompt by itself, with the tokens of IBM's models; these functions take those of any prompt.
"""

import ctypes
import os
from pathlib import Path

import numpy as np
from runner_protocol import serve

CONTEXT = 4096


class Parameters(ctypes.Structure):
    """`granite_speech_context_params`."""

    _fields_ = [
        ("n_threads", ctypes.c_int),
        ("verbosity", ctypes.c_int),
        ("use_gpu", ctypes.c_bool),
        ("flash_attn", ctypes.c_bool),
    ]


ADDRESS, NUMBER, SIZE = ctypes.c_void_p, ctypes.c_int, ctypes.POINTER(ctypes.c_int)
MATRIX = (ADDRESS, (ADDRESS, ADDRESS, NUMBER, NUMBER, SIZE, SIZE))
TOKENS = (ADDRESS, (ADDRESS, ADDRESS, NUMBER))
FUNCTIONS = {  # results and arguments, as in src/granite_speech.h of CrispASR
    "init_from_file": (ADDRESS, (ctypes.c_char_p, Parameters)),
    "kv_init": (ctypes.c_bool, (ADDRESS, NUMBER)),
    "kv_reset": (None, (ADDRESS,)),
    "eos_token_id": (NUMBER, (ADDRESS,)),
    "compute_mel": (ADDRESS, (ADDRESS, ADDRESS, NUMBER, SIZE, SIZE)),
    "run_encoder": MATRIX,
    "run_projector": MATRIX,
    "run_llm_kv": MATRIX,
    "embed_tokens": TOKENS,
    "decode_tokens": TOKENS,
}


class Engine:
    """A loaded model."""

    def __init__(self, path):
        import crispasr

        os.environ["CRISPASR_KV_QUANT"] = "f32"
        library = ctypes.CDLL(str(next(Path(crispasr.__file__).parent.glob("libcrispasr.*"))))
        self.free = ctypes.CDLL(None).free
        self.free.argtypes = [ADDRESS]
        self.functions = {name: getattr(library, f"granite_speech_{name}") for name in FUNCTIONS}
        for name, (result, arguments) in FUNCTIONS.items():
            self.functions[name].restype, self.functions[name].argtypes = result, arguments
        self.model = self.functions["init_from_file"](str(path).encode(), Parameters(os.cpu_count(), 0, False, False))
        if not self.model or not self.call("kv_init", CONTEXT):
            raise RuntimeError(f"CrispASR cannot load {path}")
        self.end = self.call("eos_token_id")

    def call(self, name, *arguments):
        """A function of the model."""
        return self.functions[name](self.model, *arguments)

    def matrix(self, name, values, *sizes):
        """A function from an array of float32 to a matrix of float32."""
        values = np.ascontiguousarray(values, np.float32)
        rows, columns = NUMBER(), NUMBER()
        return self.taken(self.call(name, values.ctypes.data, *sizes, rows, columns), rows.value, columns.value)

    def taken(self, address, rows, columns):
        """A copy of a matrix of the library, which is freed."""
        if not address:
            raise RuntimeError("CrispASR cannot process the clip")
        values = np.frombuffer(ctypes.string_at(address, 4 * rows * columns), np.float32).reshape(rows, columns).copy()
        self.free(address)
        return values

    def audio(self, samples):
        """Embeddings (A, H) of samples."""
        samples = np.ascontiguousarray(samples, np.float32)
        bins, frames = NUMBER(), NUMBER()
        mel = self.call("compute_mel", samples.ctypes.data, len(samples), bins, frames)
        mel = self.taken(mel, frames.value, bins.value)
        states = self.matrix("run_encoder", mel, bins.value, frames.value)
        return self.matrix("run_projector", states, *states.shape)

    def embeddings(self, tokens, width):
        """Embeddings (N, width) of tokens."""
        tokens = np.ascontiguousarray(tokens, np.int32)
        return self.taken(self.call("embed_tokens", tokens.ctypes.data, len(tokens)), len(tokens), width)

    def next_token(self, embeddings, past):
        """The most probable token after embeddings (N, H), which follow `past` others."""
        return int(self.matrix("run_llm_kv", embeddings, len(embeddings), past).argmax())

    def text(self, tokens):
        """The text of tokens."""
        tokens = np.ascontiguousarray(tokens, np.int32)
        address = self.call("decode_tokens", tokens.ctypes.data, len(tokens))
        text = ctypes.string_at(address).decode(errors="replace")
        self.free(address)
        return text


def load(request):
    """The model."""
    return Engine(next(Path(request["gguf"]).glob("*.gguf")))


def transcribe(engine, samples, clip, limit):
    """Greedy text."""
    audio = engine.audio(samples)
    width = audio.shape[1]
    before, after = (engine.embeddings(part, width) if part else audio[:0] for part in clip["tokens"])
    embeddings, past, tokens = np.concatenate([before, audio, after]), 0, []
    engine.call("kv_reset")
    while len(tokens) < limit:
        token = engine.next_token(embeddings, past)
        if token == engine.end:
            break
        tokens.append(token)
        past += len(embeddings)
        embeddings = engine.embeddings([token], width)
    return engine.text(tokens).strip() if tokens else ""


if __name__ == "__main__":
    serve(load, transcribe, ["crispasr"])
