"""The recipe: every setting, its type, its range and its default, and nowhere else.

A YAML file is read as plain strings and converted by each field's type, so `1e-5` is a number and
`no` is what its field says. `--set a.b=value` goes over the file; the origin of each value is kept.
"""

import difflib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from finetune.errors import RecipeError


class Section(BaseModel):
    """Frozen, and closed to unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class ModelSection(Section):
    base: str = "data/granite-speech-nano"
    """Local folder in hub layout, or a hub name such as ibm-granite/granite-4.0-1b-speech."""
    revision: str | None = None
    """Commit of a hub name; pin it for a result that can be repeated."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Of the weights in memory; auto is bfloat16 on CUDA and float32 elsewhere."""
    instruction: str = "can you transcribe the speech into a written format?"
    """Follows the audio in the prompt; this one is the model card's."""


class DataSection(Section):
    train: list[str] = Field(min_length=1)
    """Corpora: .jsonl, .csv, .tsv, .parquet, a folder, or hf:NAME:SPLIT."""
    valid: list[str] = Field(min_length=1)
    test: list[str] = Field(min_length=1)
    canary: list[str] = []
    """General speech that must not get worse."""
    terms: str | None = None
    """A file of terms, one a line, whose recall is reported."""
    lowercase: bool = True
    """Transcripts to lower case, as the base model writes."""
    min_duration: float = Field(0.2, gt=0)
    max_duration: float = Field(30.0, gt=0)
    """Seconds."""
    max_chars_per_second: float = Field(40.0, gt=0)
    max_bad_fraction: float = Field(0.02, ge=0, le=1)
    """More unusable rows than this share stop the run."""
    allow_leaks: bool = False
    """Go on although a test sentence stands in train."""


class AugmentSection(Section):
    speed: float = Field(0.0, ge=0, le=0.3)
    """Playing speed is drawn from 1 - speed to 1 + speed."""
    gain_db: float = Field(0.0, ge=0, le=30)
    noise_db: float = Field(0.0, ge=0, le=60)
    """White noise at a signal-to-noise ratio of this to 30 dB more, on half of the clips; 0 is off."""
    mel_mask: int = Field(0, ge=0, le=40)
    """Widest of two masks over mel bins (SpecAugment)."""
    time_mask: int = Field(0, ge=0, le=100)
    """Widest of two masks over 20 ms frames."""


class TrainSection(Section):
    epochs: int = Field(4, ge=1)
    batch_seconds: float = Field(120.0, gt=0)
    """Padded audio in a batch on one device."""
    accumulation: int = Field(1, ge=1)
    """Batches summed into one optimizer step."""
    lora_rank: int = Field(16, ge=0)
    """0 is no LoRA."""
    lora_alpha: float = Field(32.0, gt=0)
    lora_dropout: float = Field(0.0, ge=0, lt=1)
    lora_modules: list[str] = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    """Linear layers of the language model, by their last name."""
    projector: bool = False
    """Train the projector in full."""
    encoder_blocks: int = Field(0, ge=0)
    """Train this many upper conformer blocks and the CTC head in full."""
    ctc_weight: float = Field(0.0, ge=0)
    """Of the encoder's CTC loss; it needs encoder_blocks."""
    learning_rate: float = Field(2e-4, gt=0, le=1)
    """Of LoRA, and of the other parts where they have none of their own."""
    projector_learning_rate: float | None = Field(None, gt=0, le=1)
    encoder_learning_rate: float | None = Field(None, gt=0, le=1)
    warmup: float = Field(0.1, ge=0, le=1)
    """Share of the steps over which the rate rises; it then falls linearly."""
    weight_decay: float = Field(0.0, ge=0)
    max_grad_norm: float = Field(1.0, gt=0)
    evaluate_every: int = Field(1, ge=1)
    """Epochs between two generated valid scores."""
    patience: int = Field(0, ge=0)
    """Stop after so many valid scores without a better one; 0 is never."""
    workers: int = Field(0, ge=0)
    """Processes that decode audio ahead."""
    gradient_checkpointing: bool = False
    """Of the language model: less memory, slower."""
    wandb: bool = False
    """Mirror metrics to Weights & Biases; WANDB_MODE=offline needs no account."""


class DecodeSection(Section):
    decoder: Literal["greedy", "speculative"] = "speculative"
    """Speculative drafts with the CTC head; both write the same tokens."""
    max_new_tokens: int = Field(200, ge=1)
    batch_seconds: float = Field(240.0, gt=0)


class EvaluateSection(Section):
    normalizer: Literal["none", "basic@1", "ja-cer@1"] = "basic@1"
    replicas: int = Field(2000, ge=100)
    """Of the bootstrap behind each interval."""


class ExportSection(Section):
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Of the saved weights; auto is that of the base's files."""
    clips: int = Field(16, ge=1)
    """Test clips on which the exported folder is compared with what was trained."""
    tolerance: float = Field(1e-3, gt=0)
    """Largest difference of logits between the merged float32 weights and the unmerged model."""


class Recipe(Section):
    name: str
    """The run directory below `runs`; the file's name unless said otherwise."""
    seed: int = 1
    runs: str = "runs"
    """Where run directories are made."""
    model: ModelSection = ModelSection()
    data: DataSection
    augment: AugmentSection = AugmentSection()
    train: TrainSection = TrainSection()
    decode: DecodeSection = DecodeSection()
    evaluate: EvaluateSection = EvaluateSection()
    export: ExportSection = ExportSection()


@dataclass(frozen=True)
class Setting:
    """One resolved value and where it came from: `default`, `recipe.yaml:12` or `--set`."""

    key: str
    value: Any
    origin: str


def known_keys(section: type[BaseModel] = Recipe, prefix: str = "") -> list[str]:
    """Every dotted key of a recipe."""
    keys = []
    for name, field in section.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            keys += known_keys(kind, f"{prefix}{name}.")
        else:
            keys.append(prefix + name)
    return keys


def _flatten(node: yaml.Node, where: str, prefix: str = "") -> dict[str, tuple[Any, str]]:
    """Dotted keys of a YAML mapping with their raw values and `file:line`."""
    found: dict[str, tuple[Any, str]] = {}
    if not isinstance(node, yaml.MappingNode):
        raise RecipeError(f"{where}:{node.start_mark.line + 1}: a recipe is a mapping of keys to values")
    for key_node, value in node.value:
        line = f"{where}:{key_node.start_mark.line + 1}"
        key = prefix + str(key_node.value)
        if isinstance(value, yaml.MappingNode):
            inner = _flatten(value, where, key + ".")
        elif isinstance(value, yaml.SequenceNode):
            if not all(isinstance(item, yaml.ScalarNode) and item.value.strip() for item in value.value):
                raise RecipeError(f"{line}: {key}: a list of plain values is wanted")
            inner = {key: ([item.value for item in value.value], line)}
        else:
            inner = {key: (_plain(value.value, value.style), line)}
        for name, entry in inner.items():
            if name in found:
                raise RecipeError(f"{entry[1]}: {name} stands twice")
            found[name] = entry
    return found


def _plain(text: str, style: str | None = None) -> str | None:
    return None if style is None and text.strip().lower() in {"", "~", "null"} else text


def _as_field(key: str, value: Any) -> Any:
    """A raw value as its field's kind writes it: lists from `a,b`, None from `none` where there may be none."""
    kind: Any = Recipe
    for part in key.split("."):
        kind = kind.model_fields[part].annotation
    if get_origin(kind) is list and not isinstance(value, list):
        text = value or ""
        text = text[1:-1] if text[:1] + text[-1:] == "[]" else text
        return [part.strip() for part in text.split(",") if part.strip()]
    if isinstance(value, str) and value.strip().lower() == "none" and type(None) in get_args(kind):
        return None
    return value


def _nearest(key: str, known: list[str]) -> str | None:
    """The known key most like an unknown one, first by the whole of it, then by its last part."""
    names = {name.rpartition(".")[2]: name for name in reversed(known)}
    whole = difflib.get_close_matches(key, known, 1, 0.8)
    last = difflib.get_close_matches(key.rpartition(".")[2], names, 1, 0.6)
    return whole[0] if whole else names[last[0]] if last else None


def _nest(flat: dict[str, Any]) -> dict[str, Any]:
    nested: dict[str, Any] = {}
    for key, value in flat.items():
        *sections, last = key.split(".")
        level = nested
        for section in sections:
            level = level.setdefault(section, {})
        level[last] = value
    return nested


def load_recipe(path: str | Path, overrides: list[str] | None = None) -> tuple[Recipe, list[Setting]]:
    """Reads, overrides and checks a recipe.

    Args:
        path: the YAML file.
        overrides: `a.b=value` strings, as after `--set`; a list is written `a,b`.

    Returns:
        The frozen recipe, and every setting with its origin, in the order of the sections.

    Raises:
        RecipeError: no such file, broken YAML, an unknown key (with the nearest known one), a wrong
            value; each with file:line or the override that brought it.
    """
    path = Path(path)
    try:
        node = yaml.compose(path.read_text(encoding="utf-8-sig"), Loader=yaml.SafeLoader)
    except FileNotFoundError as error:
        raise RecipeError(f"{path}: no such file; a recipe is wanted, such as recipes/quickstart.yaml") from error
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path}: cannot be read: {error}") from error
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        hint = " (indent with spaces)" if "\\t" in str(error.problem) else ""
        raise RecipeError(f"{path}:{line}: not valid YAML: {error.problem}{hint}") from error
    except yaml.YAMLError as error:
        raise RecipeError(f"{path}: not valid YAML: {error}") from error
    if node is None:
        raise RecipeError(f"{path}: the recipe is empty")
    flat = _flatten(node, str(path))
    for item in overrides or []:
        key, equals, value = item.partition("=")
        if not equals:
            raise RecipeError(f"--set {item}: wants key=value")
        flat[key.strip()] = (_plain(value), f"--set {item}")
    known = known_keys()
    for key, (value, origin) in list(flat.items()):
        if any(name.startswith(f"{key}.") for name in known):
            if value is not None:
                raise RecipeError(f"{origin}: '{key}' is a section; its settings stand below it, indented")
            del flat[key]
            continue
        if key not in known:
            near = _nearest(key, known)
            raise RecipeError(f"{origin}: unknown key '{key}'" + (f"; did you mean '{near}'?" if near else ""))
        flat[key] = (_as_field(key, value), origin)
    flat.setdefault("name", (path.stem, "default"))
    try:
        recipe = Recipe.model_validate(_nest({key: value for key, (value, _) in flat.items()}))
    except ValidationError as error:
        lines = []
        for problem in error.errors():
            key = ".".join(str(part) for part in problem["loc"] if isinstance(part, str))
            origin = flat[key][1] if key in flat else str(path)
            lines.append(f"{origin}: {key}: {problem['msg']}" + (f", got {problem['input']!r}" if key in flat else ""))
        raise RecipeError("\n".join(lines)) from error
    _check_together(recipe, flat, str(path))
    return recipe, [Setting(key, _value(recipe, key), flat[key][1] if key in flat else "default") for key in known]


def _value(recipe: Recipe, key: str) -> Any:
    value: Any = recipe
    for part in key.split("."):
        value = getattr(value, part)
    return value


def _check_together(recipe: Recipe, flat: dict[str, tuple[Any, str]], path: str) -> None:
    """What no single field can say."""
    def fail(key: str, text: str) -> None:
        raise RecipeError(f"{flat[key][1] if key in flat else path}: {key}: {text}")

    train = recipe.train
    if not (train.lora_rank or train.projector or train.encoder_blocks):
        fail("train.lora_rank", "nothing would be trained; set lora_rank, projector or encoder_blocks")
    if train.lora_rank and not train.lora_modules:
        fail("train.lora_modules", "LoRA needs at least one; train.lora_rank of 0 is no LoRA")
    if train.ctc_weight and not train.encoder_blocks:
        fail("train.ctc_weight", "the CTC loss needs train.encoder_blocks of at least 1")
    if recipe.data.min_duration >= recipe.data.max_duration:
        fail("data.min_duration", "must be below data.max_duration")
    if recipe.data.max_duration > train.batch_seconds:
        fail("train.batch_seconds", "must hold the longest clip, data.max_duration")
    if not recipe.name or "/" in recipe.name or recipe.name.startswith("."):
        fail("name", "must be a plain folder name")
