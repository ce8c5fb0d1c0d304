"""The part of a model card that says how to run the model: prompt, engines, and which engines were verified."""

import json
import shlex
from collections.abc import Mapping
from pathlib import Path

from finetune.core.files import write_text
from finetune.core.options import MAX_WINDOW, DecodingOptions
from finetune.core.prompts import DEFAULT_PROFILE, PromptProfile
from finetune.core.wording import all_of, count, first_of
from finetune.exporting.engine_checks import EngineCheck
from finetune.model.prompt import user_request
from finetune.report.wording import percent

START, END = "<!-- verified engines -->", "<!-- end of verified engines -->"
TOOLKIT = """```
finetune transcribe call.wav --model MODEL --format srt
python MODEL/transcribe call.wav              # without the toolkit: torch, transformers, soundfile, soxr
```

MODEL is the folder of this repository. Both cut long audio at pauses and write text, JSON, SRT, WebVTT or TSV.

transformers 5.10 or newer, with torchaudio; 16 kHz, one channel, at most {window:g} s:

```python
import soundfile
import torch
from transformers import AutoModelForSpeechSeq2Seq, AutoProcessor

processor = AutoProcessor.from_pretrained("MODEL")
model = AutoModelForSpeechSeq2Seq.from_pretrained("MODEL")
samples, rate = soundfile.read("clip.wav", dtype="float32")
turns = {turns}
prompt = processor.tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
inputs = processor(prompt, torch.from_numpy(samples), return_tensors="pt")
output = model.generate(**inputs, max_new_tokens={tokens}, do_sample=False, num_beams=1)
print(processor.tokenizer.decode(output[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True))
```
"""
ENGINE_USAGE = {
    "vllm": """vLLM. `LLM.generate` takes the prompt of the section Prompt, in the chat template;
`/v1/audio/transcriptions` of the server writes a prompt of its own:

```
vllm serve MODEL --max-model-len 2048
```
""",
    "mlx": """mlx-audio:

```python
from mlx_audio.stt.utils import load_model

print(load_model("MODEL").generate("clip.wav", prompt={request}, max_tokens={tokens}, temperature=0.0).text)
```
""",
    "llamacpp": """llama.cpp, with the GGUF files that `finetune export --format gguf` writes:

```
llama-mtmd-cli -m model-F16.gguf --mmproj mmproj-F16.gguf --audio clip.wav {llamacpp_prompt}
```
""",
    "crispasr": """CrispASR, with the file of `finetune export --format crispasr`; it writes the prompt by itself:

```
crispasr --backend granite -m granite-speech-F16.gguf -f clip.wav
```
""",
}
DEFAULT_DECODING = DecodingOptions()
MAX_PROMPTS = 8  # instructions in the card, beside that of the recipe
PROMPT_ABOVE = "the prompt of the section Prompt, with the chat template of the base model"


def usage(instruction: str, profile: PromptProfile, window: float, tokens: int) -> str:
    """How to run a merged model.

    Args:
        instruction: Of the recipe.
        profile: The prompts of the model.
        window: Seconds of speech that the model transcribes well in one piece.
        tokens: Most new tokens of a clip.
    """
    turns = [{"role": "system", "content": profile.system}] if profile.system else []
    turns.append({"role": "user", "content": f"<|audio|>{profile.separator}{instruction}"})
    return TOOLKIT.format(window=window, turns=turns, tokens=tokens)


def prompt_section(
    instruction: str, profile: PromptProfile, keywords: bool, others: Mapping[str, int] | None = None
) -> str:
    """The prompt as text.

    Args:
        instruction: Of the recipe.
        profile: The prompts of the model.
        keywords: Whether the model can be given keywords.
        others: Other instructions of the training, such as those of translations, with their clips; the first
            `MAX_PROMPTS` are shown.
    """
    lines = [f"The turn of the user is `<|audio|>{profile.separator}{instruction}`, in the chat template of the model."]
    if profile.system:
        lines.append(f"The system turn is `{json.dumps(profile.system, ensure_ascii=False)[1:-1]}`.")
    if keywords:
        request = user_request(instruction, ("a", "b"), profile)
        lines.append(f"With keywords it is `<|audio|>{profile.separator}{request}`.")
    if others:
        shown = [f"`{' '.join(text.split())}` ({count(number, 'clip')})" for text, number in others.items()]
        lines.append(f"Training clips also had other instructions in its place: {first_of(shown, MAX_PROMPTS)}.")
    return "\n".join(lines) + "\n"


def llamacpp_prompt(instruction: str, profile: PromptProfile) -> str:
    """The arguments of `llama-mtmd-cli` for the prompt; it writes the audio directly before the text of `-p`."""
    user = f"-p {_shell_text(profile.separator + instruction)}"
    return f"-sys {_shell_text(profile.system)} {user}" if profile.system else user


def _shell_text(text: str) -> str:
    """A text as one argument of a shell: in double quotes, unless a shell would change it there."""
    return shlex.quote(text) if any(character in text for character in '"\\$`!') else f'"{text}"'


def engine_section(
    checks: Mapping[str, EngineCheck],
    instruction: str,
    tokens: int,
    profile: PromptProfile = DEFAULT_PROFILE,
    decode: DecodingOptions = DEFAULT_DECODING,
) -> str:
    """The table of verified engines, and how to run each; between two marks, so that it can be replaced.

    `decode` are the options of the recipe; the section says which of them were not used.
    """
    if not checks:
        return f"{START}\nNo other engine was verified (`finetune verify`).\n{END}\n"
    lines = [
        "| engine | version | format | clips with equal text | WER (%) | WER of the toolkit (%) |",
        "|---|---|---|---|---|---|",
    ]
    for name, item in sorted(checks.items()):
        versions = ", ".join(f"{package} {version}" for package, version in item.versions.items())
        lines.append(
            f"| {name} | {versions} | {item.format} | {item.equal} of {item.clips} | {percent(item.wer)} | "
            f"{percent(item.toolkit_wer)} |"
        )
    how = [
        ENGINE_USAGE[name]
        .replace("{llamacpp_prompt}", llamacpp_prompt(instruction, profile))
        .replace("{request}", json.dumps(instruction, ensure_ascii=False))
        .replace("{tokens}", str(tokens))
        for name in sorted(checks)
        if name in ENGINE_USAGE
    ]
    compared = f"`finetune verify` compared greedy texts with those of the toolkit{_without(decode)}:"
    table = "\n".join([compared, "", *lines])
    return "\n".join([START, table, "", *how, END, ""])


def _without(decode: DecodingOptions) -> str:
    """What the scores of the section Results have and both sides of `finetune verify` lack."""
    parts = [f"the list of {count(len(decode.terms), 'term')} (`decode.terms`)"] * bool(decode.terms)
    parts += ["beam search"] * (decode.decoder == "beam")
    parts += ["cuts at pauses (`decode.max_window`)"] * (decode.max_window < MAX_WINDOW)
    if not parts:
        return ""
    return f". Both sides wrote without {all_of(parts)}, which the section Results has"


def update_engines(
    folder: Path,
    checks: Mapping[str, EngineCheck],
    instruction: str,
    tokens: int,
    profile: PromptProfile = DEFAULT_PROFILE,
    decode: DecodingOptions = DEFAULT_DECODING,
) -> bool:
    """Replaces the section in the card of an export. Returns whether it has a card with this section."""
    path = folder / "README.md"
    if not path.is_file():
        return False
    text = path.read_text(encoding="utf-8")
    before, start, rest = text.partition(START)
    _, end, after = rest.partition(END + "\n")
    if not start or not end:
        return False
    write_text(path, before + engine_section(checks, instruction, tokens, profile, decode) + after)
    return True
