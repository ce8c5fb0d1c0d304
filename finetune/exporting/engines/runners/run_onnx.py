"""onnxruntime: the graphs of `--format onnx`. The features come from this toolkit, in whose environment it runs."""

import json
from pathlib import Path

from runner_protocol import serve


def load(request):
    """Sizes, tokenizer and the three sessions."""
    import onnxruntime
    from tokenizers import Tokenizer

    folder = Path(request["model"])
    sizes = json.loads((folder / "onnx.json").read_text(encoding="utf-8"))
    sessions = [
        onnxruntime.InferenceSession(str(folder / f"{name}.onnx"), providers=["CPUExecutionProvider"])
        for name in ("audio", "embedding", "decoder")
    ]
    return sizes, Tokenizer.from_file(str(folder / "tokenizer.json")), *sessions


def features_of(samples):
    """Log-mel features (1, T, 160)."""
    import torch

    from finetune.data.features import log_mel

    return log_mel(torch.from_numpy(samples))[None].numpy()


def transcribe(loaded, samples, clip, limit):
    """Greedy text."""
    import numpy as np

    sizes, tokenizer, audio, embedding, decoder = loaded
    features = features_of(samples)
    frames = features.shape[1]
    padded = np.pad(features, ((0, 0), (0, -frames % sizes["frame_unit"]), (0, 0)))
    audio_embeds = audio.run(None, {"features": padded, "frames": np.array([frames])})[0]
    before, after = (tokenizer.encode(part, add_special_tokens=False).ids for part in clip["prompt"].split("<|audio|>"))

    def embed(ids):
        return embedding.run(None, {"ids": np.array([ids], dtype=np.int64)})[0]

    count = -(-frames // sizes["window"]) * sizes["queries"]
    embeds = np.concatenate([embed(before), audio_embeds[:, :count], embed(after)], axis=1)
    cache, tokens = np.zeros(sizes["empty_cache"], dtype=np.float32), []
    while len(tokens) < limit:
        logits, cache = decoder.run(None, {"embeds": embeds, "cache": cache})
        token = int(logits[0].argmax())
        if token == sizes["end_token"]:
            break
        tokens.append(token)
        embeds = embed([token])
    return tokenizer.decode(tokens, skip_special_tokens=True).strip()


if __name__ == "__main__":
    serve(load, transcribe, ["onnxruntime"])
