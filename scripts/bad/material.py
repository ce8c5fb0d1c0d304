"""The good material of all cases: a tiny random model, clips, manifests, hypotheses, a recipe and a finished run."""

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile

RATE = 16_000
NANO = Path(__file__).resolve().parents[2] / "data" / "granite-speech-nano"
WORDS = ("one two", "three four", "five six", "seven eight", "nine ten", "red green", "blue black", "white brown")


@dataclass(frozen=True)
class Material:
    """The folder of all cases, and the good inputs in it."""

    root: Path

    @property
    def good(self) -> Path:
        return self.root / "good"

    @property
    def model(self) -> Path:
        return self.good / "model"

    @property
    def run(self) -> Path:
        return self.good / "runs" / "done"

    @property
    def recipe(self) -> str:
        return str(self.good / "recipe.yaml")

    @property
    def test(self) -> str:
        return str(self.good / "test.jsonl")

    def folder(self, name: str) -> Path:
        """A new folder for a case."""
        path = self.root / name
        path.mkdir(parents=True)
        return path

    def on_test(self, command: str, corpus: Path | str) -> list[str]:
        """A command with the good recipe and another test set."""
        return [command, self.recipe, "--set", "runs=runs", "--set", f"data.test={corpus}"]

    def copy_model(self, folder: Path) -> Path:
        """A copy of the model for a case that damages it."""
        return Path(shutil.copytree(self.model, folder))

    def copy_run(self, folder: Path) -> Path:
        """A copy of the finished run for a case that damages it, as runs/done in `folder`."""
        return Path(shutil.copytree(self.run, folder / "runs" / "done"))


def build_material(root: Path, finetune: Callable[[list[str]], int]) -> Material:
    """Writes the good inputs below `root`.

    Args:
        root: an empty folder.
        finetune: runs the command; it makes the finished run.
    """
    material = Material(root)
    build_model(material.model)
    rng = np.random.default_rng(1)
    texts = iter(f"{a} {b}" for a in WORDS for b in WORDS if a != b)
    for split, count in (("train", 4), ("valid", 2), ("test", 4)):
        rows = []
        for number in range(count):
            name = f"{split}{number}.wav"
            soundfile.write(material.good / name, rng.uniform(-0.3, 0.3, RATE).astype(np.float32), RATE)
            rows.append(
                {"id": f"{split}{number}", "audio_filepath": name, "text": next(texts), "speaker": f"s{number}"}
            )
        write_jsonl(material.good / f"{split}.jsonl", rows)
        if split == "test":
            for name, row in (("hyp_a", 0), ("hyp_b", 1)):
                guesses = [{"id": item["id"], "pred_text": rows[row]["text"]} for item in rows]
                write_jsonl(material.good / f"{name}.jsonl", guesses)
    write_recipe(material)
    code = finetune(["run", material.recipe])
    if code:
        raise SystemExit(f"the run on good inputs failed with exit code {code}")
    return material


def write_recipe(material: Material) -> None:
    """The recipe of the finished run."""
    Path(material.recipe).write_text(
        f"name: done\nruns: {material.good / 'runs'}\nmodel: {{base: {material.model}}}\n"
        "data:\n"
        + "".join(f"  {split}: [{material.good / split}.jsonl]\n" for split in ("train", "valid", "test"))
        + "parts: {lora: {rank: 2}}\ntrain: {epochs: 1, batch_seconds: 30}\nmachine: {processes: 1}\n"
        "decode: {max_new_tokens: 4, decoder: greedy}\nevaluate: {replicas: 100, probes: false}\nexport: {clips: 1}\n"
    )


def write_jsonl(path: Path, rows: list[dict[str, object]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def build_model(folder: Path) -> None:
    """A Granite Speech model of 0.2 million random weights, with the embedded model's tokenizer."""
    import torch
    from transformers import GraniteSpeechConfig, GraniteSpeechForConditionalGeneration

    config = json.loads((NANO / "config.json").read_text(encoding="utf-8"))
    config["encoder_config"] |= {"hidden_dim": 32, "num_heads": 2, "dim_head": 16, "num_layers": 2}
    config["projector_config"] |= {
        "encoder_hidden_size": 32,
        "hidden_size": 32,
        "intermediate_size": 32,
        "num_attention_heads": 2,
        "num_hidden_layers": 1,
    }
    config["text_config"] |= {
        "hidden_size": 32,
        "intermediate_size": 32,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "num_hidden_layers": 1,
    }
    torch.manual_seed(1)
    folder.mkdir(parents=True)
    GraniteSpeechForConditionalGeneration(GraniteSpeechConfig.from_dict(config)).save_pretrained(folder)
    for path in NANO.iterdir():
        if path.name not in ("config.json", "model.safetensors", "README.md"):
            shutil.copyfile(path, folder / path.name)
    (folder / "generation_config.json").unlink(missing_ok=True)
    (folder / "config.json").write_text(json.dumps(config, indent=2), encoding="utf-8")
