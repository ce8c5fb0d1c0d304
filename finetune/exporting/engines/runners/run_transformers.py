"""transformers: `generate` of the merged folder, or with an adapter by PEFT (`adapter` of the request)."""

import torch
from runner_protocol import serve

SAFE = {"use_safetensors": True, "trust_remote_code": False}  # no pickles, no code of the folder


def load(request):
    """Processor or tokenizer, feature function and model, in float32.

    It is loaded as stored and then converted, one tensor after the other: loading it in float32 holds both at once.
    """
    from transformers import AutoModelForSpeechSeq2Seq, AutoTokenizer

    folder = request["model"]
    model = AutoModelForSpeechSeq2Seq.from_pretrained(folder, dtype="auto", **SAFE).float().eval()
    for module in model.modules():  # `float` leaves integers in the mapped file, and all of it would stay in memory
        for name, buffer in module._buffers.items():
            module._buffers[name] = None if buffer is None else buffer.clone()
    if request.get("adapter"):
        from peft import PeftModel

        model = PeftModel.from_pretrained(model, request["adapter"]).eval()
    return AutoTokenizer.from_pretrained(folder, trust_remote_code=False), feature_function(folder), model


def feature_function(folder):
    """The processor's feature extractor, which needs torchaudio; else the front end of this toolkit, if it is here."""
    from transformers import AutoFeatureExtractor

    try:
        extractor = AutoFeatureExtractor.from_pretrained(folder, trust_remote_code=False)
    except ImportError:
        from finetune.data.features import log_mel, pad_features

        return lambda samples: pad_features([log_mel(samples)])[0]
    return lambda samples: extractor(samples)["input_features"]


@torch.inference_mode()
def transcribe(loaded, samples, clip, limit):
    """Greedy text."""
    tokenizer, features, model = loaded
    config = model.config
    values = features(torch.from_numpy(samples))
    window, rate = config.window_size, config.downsample_rate
    count = -(-values.shape[1] // window) * (window // rate)
    before, after = clip["prompt"].split("<|audio|>")
    ids = [
        *tokenizer.encode(before, add_special_tokens=False),
        *[config.audio_token_index] * count,
        *tokenizer.encode(after, add_special_tokens=False),
    ]
    ids = torch.tensor([ids])
    output = model.generate(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        input_features=values,
        input_features_mask=torch.ones(1, count, dtype=torch.bool),
        max_new_tokens=limit,
        do_sample=False,
        num_beams=1,
    )
    return tokenizer.decode(output[0, ids.shape[1] :], skip_special_tokens=True).strip()


if __name__ == "__main__":
    serve(load, transcribe, ["transformers", "torch"], ["peft"])
