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


class Engine:
    """A loaded model."""

    def __init__(self, path):
        import crispasr

        os.environ["CRISPASR_KV_QUANT"] = "f32"
        self.c = ctypes.CDLL(str(next(Path(crispasr.__file__).parent.glob("libcrispasr.*"))))
        self.free = ctypes.CDLL(None).free
        self.free.argtypes = [ctypes.c_void_p]
        init = self.function("init_from_file", ctypes.c_void_p, ctypes.c_char_p, Parameters)
        self.model = init(str(path).encode(), Parameters(os.cpu_count(), 0, False, False))
        if not self.model or not self.function("kv_init", ctypes.c_bool, ctypes.c_void_p, ctypes.c_int)(
            self.model, CONTEXT
        ):
            raise RuntimeError(f"CrispASR cannot load {path}")
        self.end = self.function("eos_token_id", ctypes.c_int, ctypes.c_void_p)(self.model)

    def function(self, name, result, *arguments):
        """A C function with its types."""
        found = getattr(self.c, f"granite_speech_{name}")
        found.restype, found.argtypes = result, arguments
        return found

    def matrix(self, name, values, *sizes):
        """A function from an array of float32 to a matrix of float32."""
        rows, columns = ctypes.c_int(), ctypes.c_int()
        call = self.function(
            name,
            ctypes.c_void_p,
            ctypes.c_void_p,
            ctypes.c_void_p,
            *[ctypes.c_int] * len(sizes),
            *[ctypes.POINTER(ctypes.c_int)] * 2,
        )
        values = np.ascontiguousarray(values, np.float32)
        found = call(self.model, values.ctypes.data, *sizes, rows, columns)
        return self.taken(found, np.float32, (rows.value, columns.value))

    def taken(self, address, dtype, shape):
        """A copy of an array of the library, which is freed."""
        if not address:
            raise RuntimeError("CrispASR cannot process the clip")
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        values = np.frombuffer(ctypes.string_at(address, size), dtype).reshape(shape).copy()
        self.free(address)
        return values

    def embeddings(self, tokens):
        """Embeddings (N, H) of tokens."""
        call = self.function("embed_tokens", ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int)
        tokens = np.ascontiguousarray(tokens, np.int32)
        return self.taken(call(self.model, tokens.ctypes.data, len(tokens)), np.float32, (len(tokens), self.width))

    def audio(self, samples):
        """Embeddings (A, H) of samples."""
        mels, frames = ctypes.c_int(), ctypes.c_int()
        call = self.function(
            "compute_mel",
            ctypes.c_void_p,
            ctypes.c_void_p,
            ctypes.c_void_p,
            ctypes.c_int,
            *[ctypes.POINTER(ctypes.c_int)] * 2,
        )
        samples = np.ascontiguousarray(samples, np.float32)
        mel = self.taken(
            call(self.model, samples.ctypes.data, len(samples), mels, frames), np.float32, (frames.value, mels.value)
        )
        states = self.matrix("run_encoder", mel, mels.value, frames.value)
        found = self.matrix("run_projector", states, *states.shape)
        self.width = found.shape[1]
        return found

    def next_token(self, embeddings, past):
        """The most probable token after embeddings (N, H), which follow `past` others."""
        logits = self.matrix("run_llm_kv", embeddings, len(embeddings), past)
        return int(logits.reshape(-1).argmax())

    def text(self, tokens):
        """The text of tokens."""
        call = self.function("decode_tokens", ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int)
        tokens = np.ascontiguousarray(tokens, np.int32)
        address = call(self.model, tokens.ctypes.data, len(tokens))
        text = ctypes.string_at(address).decode(errors="replace")
        self.free(address)
        return text


def load(request):
    """The model."""
    return Engine(next(Path(request["gguf"]).glob("*.gguf")))


def transcribe(engine, samples, clip, limit):
    """Greedy text."""
    audio = engine.audio(samples)
    before, after = clip["tokens"]
    parts = [engine.embeddings(part) for part in (before, after) if part]
    parts.insert(bool(before), audio)
    embeddings, past, tokens = np.concatenate(parts), 0, []
    engine.function("kv_reset", None, ctypes.c_void_p)(engine.model)
    while len(tokens) < limit:
        token = engine.next_token(embeddings, past)
        if token == engine.end:
            break
        tokens.append(token)
        past += len(embeddings)
        embeddings = engine.embeddings([token])
    return engine.text(tokens).strip() if tokens else ""


if __name__ == "__main__":
    serve(load, transcribe, ["crispasr"])
