"""The recipe: every setting, its type, its range and its default, and nowhere else; `recipe_file` reads it."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from finetune.core.options import INSTRUCTION, DecodingOptions


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
    quantize: Literal["none", "4bit"] = "none"
    """Of the frozen language model while training; 4bit needs CUDA and the extra [quant]."""
    instruction: str = INSTRUCTION
    """The text after the audio in the prompt; the default is that of the model card."""


class DataSection(Section):
    train: list[str] = []
    """Corpora: .jsonl, .csv, .tsv, .parquet, a folder, or hf:NAME:SPLIT. A recipe for `finetune score` has none."""
    valid: list[str] = []
    test: list[str] = Field(min_length=1)
    """`finetune score` takes each of them by itself."""
    canary: list[str] = []
    """General speech that must not get worse."""
    replay: list[str] = []
    """General speech mixed into training, against forgetting."""
    replay_weight: float = Field(1.0, gt=0)
    """How often a replayed clip is heard in an epoch: 0.5 is half of them each time, drawn anew."""
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
    """Go on although a sentence of valid, test or canary stands in train or replay."""


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
    concat: float = Field(0.0, ge=0, lt=1)
    """How often a clip goes on with another one, and that with a third, up to data.max_duration."""


class LoraPart(Section):
    rank: int = Field(16, ge=0)
    """0 is no LoRA."""
    alpha: float = Field(32.0, gt=0)
    dropout: float = Field(0.0, ge=0, lt=1)
    variant: Literal["lora", "rslora", "dora"] = "lora"
    modules: list[str] = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    """Linear layers of the language model, by their last name; the encoder's are never meant."""
    learning_rate: float | None = Field(None, gt=0, le=1)


class ProjectorPart(Section):
    mode: Literal["frozen", "full", "lora"] = "frozen"
    rank: int = Field(16, ge=1)
    alpha: float = Field(32.0, gt=0)
    learning_rate: float | None = Field(None, gt=0, le=1)


class EncoderPart(Section):
    mode: Literal["frozen", "full", "lora"] = "frozen"
    blocks: int = Field(4, ge=1)
    """How many of the upper conformer blocks."""
    rank: int = Field(16, ge=1)
    alpha: float = Field(32.0, gt=0)
    learning_rate: float | None = Field(None, gt=0, le=1)


class HeadPart(Section):
    mode: Literal["frozen", "full"] = "frozen"
    learning_rate: float | None = Field(None, gt=0, le=1)


class LanguageModelPart(Section):
    layers: int = Field(0, ge=0)
    """How many of the last layers train in full."""
    learning_rate: float | None = Field(None, gt=0, le=1)


class PartsSection(Section):
    """What trains. A part without a learning rate of its own has that of `train`."""

    lora: LoraPart = LoraPart()
    projector: ProjectorPart = ProjectorPart()
    encoder: EncoderPart = EncoderPart()
    ctc_head: HeadPart = HeadPart()
    lm_head: HeadPart = HeadPart()
    language_model: LanguageModelPart = LanguageModelPart()


class TrainSection(Section):
    goal: Literal["vocabulary", "accent", "domain", "language"] | None = None
    """A preset of parts and augmentation (`GOALS`); whatever the recipe says itself goes before it."""
    epochs: int = Field(4, ge=1)
    batch: Literal["fixed", "auto"] = "fixed"
    """auto halves `batch_seconds` until the largest batch fits into memory, and remembers it for this machine."""
    batch_seconds: float = Field(120.0, gt=0)
    """Padded audio in a batch on one device."""
    batch_tokens: int = Field(16_000, ge=64)
    """Padded positions of the language model in such a batch."""
    accumulation: int = Field(1, ge=1)
    """Batches summed into one optimizer step, on each device."""
    learning_rate: float = Field(2e-4, gt=0, le=1)
    warmup: float = Field(0.1, ge=0, le=1)
    """Share of the steps over which the rate rises; it then falls linearly."""
    weight_decay: float = Field(0.0, ge=0)
    max_grad_norm: float = Field(1.0, gt=0)
    label_smoothing: float = Field(0.0, ge=0, lt=1)
    ctc_weight: float = Field(0.0, ge=0)
    """Of the encoder's CTC loss beside the language model's; the encoder or its CTC head must train."""
    evaluate_every: int = Field(1, ge=1)
    """Epochs between two generated valid (and canary) scores."""
    patience: int = Field(0, ge=0)
    """Stop after so many of them without a better adapter; 0 is never."""
    max_canary_loss: float | None = Field(None, ge=0, le=1)
    """The best adapter may lose at most this much WER (0.02 is two points) on the canary; none is no limit."""
    interpolate: list[Annotated[float, Field(gt=0, lt=1)]] = []
    """Shares of the way from the base's weights to the last epoch's that are scored too: a little less than all of it
    often costs the domain nothing and gives general speech back. Keeps the best of all within max_canary_loss."""
    max_skipped_steps: int = Field(5, ge=0)
    """Steps with a loss or gradient that is no number, before training stops."""


class MachineSection(Section):
    """How, and not what: a change here never makes it another run."""

    processes: int = Field(0, ge=0)
    """Training processes on this machine, but no more than GPUs where there are any; 0 is one for each GPU, or one.
    On CPU cores, a small model trains faster in a process for each than in one with many threads."""
    workers: int = Field(0, ge=0)
    """Processes that decode audio ahead, for each training process."""
    gradient_checkpointing: bool = False
    """Of the language model: less memory, slower."""
    cache_encoder: bool = False
    """Keep the frozen encoder's output on disk; needs training without augmentation."""
    checkpoint_every: int = Field(200, ge=1)
    """Steps between two checkpoints; one more stands at the end of each epoch."""
    trackers: list[Literal["wandb", "tensorboard", "trackio"]] = []
    """Mirrors of metrics.jsonl; WANDB_MODE=offline needs no account."""


class EvaluateSection(Section):
    normalizer: Literal["none", "basic@1", "ja-cer@1", "multi@1", "whisper-en@1", "openasr@2026-08"] = "basic@1"
    """What counts as the same word; metrics/normalizer.py says what each does."""
    replicas: int = Field(2000, ge=100)
    """Of the bootstrap behind each interval."""
    groups: list[str] = ["speaker"]
    """Columns of the test manifest by which errors are split; duration, bandwidth and noise are split by anyway."""
    probes: bool = True
    """Listen to eight clips without speech, for which every word is made up."""
    keyword_lists: list[Annotated[int, Field(ge=0)]] = []
    """Distractors beside a clip's own terms in its prompt, such as [0, 100, 1000]: term recall for each, and without
    keywords. Each decodes the test clips once more with either model."""


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
    parts: PartsSection = PartsSection()
    train: TrainSection = TrainSection()
    machine: MachineSection = MachineSection()
    decode: DecodingOptions = DecodingOptions()
    evaluate: EvaluateSection = EvaluateSection()
    export: ExportSection = ExportSection()


# By goal: what a recipe gets where it says nothing itself. Rates stay those of `train`.
GOALS: dict[str, dict[str, str]] = {
    "vocabulary": {
        "parts.lora.rank": "32",
        "parts.projector.mode": "full",
        "parts.encoder.mode": "full",
        "parts.encoder.blocks": "3",
        "parts.ctc_head.mode": "full",
        "train.ctc_weight": "0.3",
        "augment.speed": "0.1",
        "augment.mel_mask": "10",
        "augment.time_mask": "8",
    },
    "accent": {
        "parts.projector.mode": "full",
        "parts.encoder.mode": "lora",
        "augment.speed": "0.1",
        "augment.mel_mask": "12",
        "augment.time_mask": "12",
    },
    "domain": {
        "parts.projector.mode": "full",
        "parts.encoder.mode": "full",
        "parts.encoder.blocks": "4",
        "parts.ctc_head.mode": "full",
        "train.ctc_weight": "0.3",
        "augment.speed": "0.1",
        "augment.gain_db": "6",
        "augment.mel_mask": "12",
        "augment.time_mask": "12",
    },
    "language": {
        "parts.lora.rank": "64",
        "parts.projector.mode": "full",
        "parts.encoder.mode": "full",
        "parts.encoder.blocks": "8",
        "parts.ctc_head.mode": "full",
        "parts.lm_head.mode": "full",
        "train.ctc_weight": "0.3",
        "augment.speed": "0.1",
    },
}


def contradictions(recipe: Recipe) -> list[tuple[str, str]]:
    """What no single field can say: (dotted key, what is wrong with it)."""
    found = []
    parts, train, data = recipe.parts, recipe.train, recipe.data
    modes = [part.mode for part in (parts.projector, parts.encoder, parts.ctc_head, parts.lm_head)]
    if not (parts.lora.rank or parts.language_model.layers or any(mode != "frozen" for mode in modes)):
        found.append(("parts.lora.rank", "nothing would be trained; give it a rank, or open another part"))
    if parts.lora.rank and not parts.lora.modules:
        found.append(("parts.lora.modules", "LoRA needs at least one; parts.lora.rank of 0 is no LoRA"))
    if recipe.model.quantize == "4bit" and parts.lora.rank and parts.lora.variant == "dora":
        found.append(
            (
                "parts.lora.variant",
                "DoRA learns the lengths of the rows of the 4-bit weights, which are not "
                "those of the weights it is merged into; take lora or rslora, or set model.quantize: none",
            )
        )
    if train.ctc_weight and parts.encoder.mode == parts.ctc_head.mode == "frozen":
        found.append(("train.ctc_weight", "the CTC loss needs parts.encoder or parts.ctc_head to train"))
    if parts.ctc_head.mode == "full" and not train.ctc_weight:
        found.append(("parts.ctc_head.mode", "the CTC head learns from train.ctc_weight, which is 0"))
    if bool(data.train) != bool(data.valid):
        found.append(
            (
                f"data.{'valid' if data.train else 'train'}",
                "is missing: training needs data.train, and data.valid to choose the best adapter",
            )
        )
    if data.min_duration >= data.max_duration:
        found.append(("data.min_duration", "must be below data.max_duration"))
    if data.max_duration > train.batch_seconds:
        found.append(
            (
                "train.batch_seconds",
                f"must hold the longest clip, data.max_duration {data.max_duration:g}; raise it, or lower that",
            )
        )
    if train.max_canary_loss is not None and not data.canary:
        found.append(("train.max_canary_loss", "needs data.canary to measure it on"))
    augments = any(getattr(recipe.augment, name) for name in AugmentSection.model_fields)
    if recipe.machine.cache_encoder and augments:
        found.append(
            (
                "machine.cache_encoder",
                "what is augmented differs in every epoch and cannot be cached; "
                "set all of augment to 0, or leave the cache off",
            )
        )
    if recipe.machine.cache_encoder and (parts.encoder.mode != "frozen" or parts.ctc_head.mode != "frozen"):
        found.append(("machine.cache_encoder", "the encoder or its CTC head trains, so its output changes"))
    if not recipe.name or "/" in recipe.name or recipe.name.startswith("."):
        found.append(("name", "must be a plain folder name"))
    return found
