"""mlx-audio: the merged folder."""

from runner_protocol import serve


def load(request):
    """The model."""
    from mlx_audio.stt.utils import load_model

    return load_model(request["model"])


def transcribe(model, samples, clip, limit):
    """Greedy text. mlx-audio renders the chat template itself, around the audio and the instruction."""
    import mlx.core as mx

    instruction = clip["request"]
    return model.generate(mx.array(samples), prompt=instruction, max_tokens=limit, temperature=0.0).text.strip()


if __name__ == "__main__":
    serve(load, transcribe, ["mlx-audio", "mlx"])
