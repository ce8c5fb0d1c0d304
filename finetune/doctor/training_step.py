"""One training step of the embedded model, on the device that training would use."""

import time
from pathlib import Path

import torch

from finetune.core.config import PartsSection
from finetune.core.prompts import DEFAULT_PROFILE
from finetune.data.audio import SAMPLE_RATE
from finetune.data.features import log_mel, pad_features
from finetune.doctor.finding import Finding, failed, passed, skipped
from finetune.doctor.sound import tone
from finetune.model.granite import default_device, load_model, resolved_dtype
from finetune.model.prompt import encode_text, render
from finetune.model.trainable import open_parts, trained_parameters
from finetune.training.loss import IGNORE, token_loss
from finetune.training.parts import trainable_parts

TEXT = "this is a test"
CURE = "if it runs out of memory, free the GPU; else report this, with the lines above"


def check_training_step(folder: Path, device: str | None = None) -> Finding:
    """A step of LoRA on the model in `folder`: the loss is finite, and its weights change."""
    if not (folder / "config.json").is_file():
        return skipped("training step", f"{folder} is not here: the toolkit was installed without its source tree")
    place, started = device or default_device(), time.monotonic()
    try:
        model = load_model(str(folder), resolved_dtype("auto", place), place)
        open_parts(model, trainable_parts(PartsSection()))
        parameters = trained_parameters(model)
        before = {name: value.detach().clone() for name, value in parameters.items()}
        features, frames = pad_features([log_mel(torch.from_numpy(tone(SAMPLE_RATE))).to(place)])
        target = [*encode_text(model.tokenizer, TEXT), model.tokenizer.eos_token_id]
        prompt = render(model.tokenizer, DEFAULT_PROFILE.transcribe())
        ids = prompt.around(model.audio_token_id, int(model.num_audio_tokens(frames)[0]))
        labels = torch.tensor([[IGNORE] * len(ids) + target], device=place)
        with model.autocast():
            hidden, _ = model(features, frames, torch.tensor([ids + target], device=place))
            loss = token_loss(hidden, labels, model.logits, 0.0) / len(target)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.optim.AdamW(parameters.values(), lr=1e-3).step()
    except Exception as error:  # of torch, its drivers and transformers, of any type
        return failed("training step", f"{type(error).__name__}: {error}", CURE)
    changed = any(not torch.equal(before[name], value) for name, value in parameters.items())
    if not torch.isfinite(loss) or not changed:
        return failed("training step", f"loss {loss.item():.3f}, weights {'changed' if changed else 'unchanged'}", CURE)
    return passed("training step", f"on {place} in {time.monotonic() - started:.1f} s, loss {loss.item():.2f}")
