"""The recipe: every setting with its type, range and default; `core.recipe` reads it from YAML."""

from typing import Annotated, Literal

from pydantic import Field

from finetune.core.data_config import DataSection, Section
from finetune.core.options import DecodingOptions
from finetune.core.prompts import INSTRUCTION


class ModelSection(Section):
    base: str
    """The base model: a local folder in hub layout, or a hub name such as ibm-granite/granite-4.0-1b-speech."""
    revision: str | None = None
    """Commit of the hub repository; set it for reproducible results."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Data type of weights; auto is bfloat16 on CUDA, else float32, but frozen bfloat16 weights stay bfloat16."""
    quantize: Literal["none", "4bit"] = "none"
    """Quantization of the frozen language model during training; 4bit needs CUDA and the extra [quant]."""
    instruction: str = INSTRUCTION
    """The text after the audio in the prompt; the default is the instruction of the model card."""


class AugmentSection(Section):
    speed: float = Field(0.0, ge=0, le=0.3)
    """Speed perturbation: a random factor between 1 - speed and 1 + speed."""
    gain_db: float = Field(0.0, ge=0, le=30)
    """Volume perturbation: a random gain between -gain_db and +gain_db."""
    noise_db: float = Field(0.0, ge=0, le=60)
    """White noise on half of the clips, at a random SNR between noise_db and noise_db + 30 dB; 0 is off."""
    mel_mask: int = Field(0, ge=0, le=40)
    """SpecAugment: largest width of each of two masks, in mel bins."""
    time_mask: int = Field(0, ge=0, le=100)
    """SpecAugment: largest width of each of two masks, in frames of 20 ms."""
    concat: float = Field(0.0, ge=0, lt=1)
    """Probability that another clip is appended, and again a third, up to data.max_duration."""
    noise: list[str] = []
    """Noise to add: folders, .jsonl manifests or audio files with recordings; white, pink, brown, hum, clicks and music
    are generated; babble is other training clips. Each entry is chosen equally often."""
    noise_probability: float = Field(0.5, ge=0, le=1)
    """Probability that a clip gets noise, if `noise` has an entry."""
    noise_snr: list[Annotated[float, Field(ge=-30, le=100)]] = Field([5.0, 25.0], min_length=2, max_length=2)
    """Lowest and highest SNR of this noise, in dB."""
    rooms: list[str] = []
    """Rooms to simulate: folders, .jsonl manifests or audio files with impulse responses; simulated makes them with
    pyroomacoustics (extra `rooms`). Each entry is chosen equally often."""
    room_probability: float = Field(0.3, ge=0, le=1)
    """Probability that a clip gets a room, if `rooms` has an entry."""
    telephone: float = Field(0.0, ge=0, le=1)
    """Probability that a clip is limited to the band of a telephone, 300 to 3400 Hz."""
    codecs: list[Literal["mu-law", "a-law", "gsm", "opus", "mp3"]] = []
    """Codecs to encode and decode with: mu-law, a-law and gsm at 8 kHz, opus and mp3 at low bit rates."""
    codec_probability: float = Field(0.3, ge=0, le=1)
    """Probability that a clip gets one of `codecs`."""
    clipping: float = Field(0.0, ge=0, le=1)
    """Probability that peaks are clipped, 3 to 15 dB below the highest."""
    no_speech: float = Field(0.0, ge=0, le=0.5)
    """Fraction of an epoch's clips that are silence, noise or music with an empty transcript, against made-up words;
    made on the spot, and from the recordings of `noise`."""


class KeywordsSection(Section):
    """Keywords that training adds to prompts, other ones in each epoch; the remaining prompts have none.

    With both shares at 0, a prompt has the words of its row's column `keywords`.
    """

    true_terms: float = Field(0.0, ge=0, le=1)
    """Share of the prompts with terms of their clip among distractors; see docs/keywords.md."""
    distractors: float = Field(0.0, ge=0, le=1)
    """Share of the prompts with distractors only."""
    largest: int = Field(1000, ge=1, le=1000)
    """Most keywords in a prompt. Their number is log-uniform from 1; a list that does not fit is shortened."""
    rare_words: float = Field(0.5, ge=0, le=1)
    """Share of the lists with terms of `data.terms` that also have rare words of their clip's text; a clip without such
    a term always lists rare words."""
    copy_weight: float = Field(0.0, ge=0)
    """Weight of a loss that teaches the language model to copy from lists; for a model that cannot, such as the
    embedded one."""

    @property
    def sampled(self) -> bool:
        """Whether lists are sampled."""
        return self.true_terms + self.distractors > 0


class LoraPart(Section):
    rank: int = Field(16, ge=0)
    """LoRA rank; 0 means no LoRA."""
    alpha: float = Field(32.0, gt=0)
    """LoRA scaling: alpha / rank, or alpha / sqrt(rank) for rslora."""
    dropout: float = Field(0.0, ge=0, lt=1)
    """Dropout before the LoRA layers."""
    variant: Literal["lora", "rslora", "dora"] = "lora"
    """LoRA (arXiv 2106.09685), rank-stabilized LoRA (arXiv 2312.03732) or DoRA (arXiv 2402.09353)."""
    modules: list[str] = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    """Linear layers of the language model with LoRA, by the last part of their names; encoder layers never match."""
    learning_rate: float | None = Field(None, gt=0, le=1)
    """Learning rate of this part; the default is train.learning_rate."""


class ProjectorPart(Section):
    mode: Literal["frozen", "full", "lora"] = "frozen"
    """frozen, all weights, or LoRA."""
    rank: int = Field(16, ge=1)
    """LoRA rank, if mode is lora."""
    alpha: float = Field(32.0, gt=0)
    """LoRA scaling, if mode is lora."""
    learning_rate: float | None = Field(None, gt=0, le=1)
    """Learning rate of this part; the default is train.learning_rate."""


class EncoderPart(Section):
    mode: Literal["frozen", "full", "lora"] = "frozen"
    """frozen, all weights, or LoRA."""
    blocks: Annotated[int, Field(ge=1)] | Literal["all"] = 4
    """Number of conformer blocks that train, counted from the last block, or all."""
    rank: int = Field(16, ge=1)
    """LoRA rank, if mode is lora."""
    alpha: float = Field(32.0, gt=0)
    """LoRA scaling, if mode is lora."""
    learning_rate: float | None = Field(None, gt=0, le=1)
    """Learning rate of this part; the default is train.learning_rate."""


class HeadPart(Section):
    mode: Literal["frozen", "full"] = "frozen"
    """frozen, or all weights."""
    learning_rate: float | None = Field(None, gt=0, le=1)
    """Learning rate of this part; the default is train.learning_rate."""


class LanguageModelPart(Section):
    layers: Annotated[int, Field(ge=0)] | Literal["all"] = 0
    """Number of layers that train in full, without LoRA, counted from the last layer, or all; all need lora.rank: 0."""
    learning_rate: float | None = Field(None, gt=0, le=1)
    """Learning rate of this part; the default is train.learning_rate."""


class PartsSection(Section):
    """The trainable parts."""

    lora: LoraPart = LoraPart()
    projector: ProjectorPart = ProjectorPart()
    encoder: EncoderPart = EncoderPart()
    ctc_head: HeadPart = HeadPart()
    lm_head: HeadPart = HeadPart()
    language_model: LanguageModelPart = LanguageModelPart()


class TrainSection(Section):
    goal: Literal["vocabulary", "accent", "domain", "language", "full"] | None = None
    """A preset of parts, augmentation and machine (`GOALS`); the recipe's own settings override it. full trains
    every layer, the projector and both heads; the input layers stay."""
    epochs: int = Field(4, ge=1, le=100_000)
    """Passes over the training data."""
    batch: Literal["fixed", "auto"] = "fixed"
    """auto halves batch_seconds until the largest batch fits into memory, and stores the result for this machine."""
    batch_seconds: float = Field(120.0, gt=0)
    """Padded audio in a batch on one device, in seconds."""
    batch_tokens: int = Field(16_000, ge=64)
    """Padded language model positions in a batch on one device."""
    accumulation: int = Field(1, ge=1)
    """Batches per optimizer step on each device (gradient accumulation)."""
    learning_rate: float = Field(2e-4, gt=0, le=1)
    """Peak learning rate of AdamW."""
    optimizer: Literal["adamw", "adamw-8bit"] = "adamw"
    """adamw-8bit keeps AdamW's moments in 8 bits (arXiv 2110.02861): 2 bytes for each trained parameter in place of 8.
    Losses differ slightly. It needs the extra quant."""
    warmup: float = Field(0.1, ge=0, le=1)
    """Fraction of the steps in which the learning rate rises; it then decays linearly to 0."""
    weight_decay: float = Field(0.0, ge=0)
    """Weight decay of AdamW."""
    max_grad_norm: float = Field(1.0, gt=0)
    """Largest norm of the gradient; a larger gradient is scaled down to this norm."""
    label_smoothing: float = Field(0.0, ge=0, lt=1)
    """Probability mass that the loss spreads over the vocabulary."""
    ctc_weight: float = Field(0.0, ge=0)
    """Weight of the encoder's CTC loss, which is added to the loss of the language model; the encoder or its CTC head
    must train."""
    evaluate_every: int = Field(1, ge=1)
    """Epochs between two validations: WER of generated transcripts of valid and canary."""
    patience: int = Field(0, ge=0)
    """Stop after this many validations without a better adapter; 0 never stops early."""
    max_canary_loss: float | None = Field(None, ge=0, le=1)
    """Largest increase of the canary WER for the best adapter (0.02 is two percentage points); the default is no
    limit."""
    interpolate: list[Annotated[float, Field(gt=0, lt=1)]] = []
    """Interpolation weights alpha: also validate base + alpha * (trained - base) after the last epoch. With an
    alpha slightly below 1, the model often keeps the gain on the domain and forgets less. The best model within
    max_canary_loss is saved."""
    max_skipped_steps: int = Field(5, ge=0)
    """Steps with a non-finite loss or gradient are skipped; training stops after more than this many."""


class MachineSection(Section):
    """How the run is executed; a change here keeps the run and its checkpoint valid."""

    processes: int = Field(0, ge=0)
    """Processes of training and evaluation, at most one for each GPU if there are GPUs; 0 means one for each GPU, or
    one. On a CPU, a small model trains faster in one process per core than in one process with many threads."""
    prepare_workers: int = Field(0, ge=0)
    """Processes that decode audio in `prepare`; 0 means one for each core. Small corpora are read by threads."""
    workers: int = Field(0, ge=0)
    """Data loader processes that decode audio, for each training process."""
    shard_optimizer: bool = False
    """Divide AdamW's moments (8 bytes for each trained parameter) over the processes: less memory if many parameters
    train on several GPUs. The result is the same."""
    gradient_checkpointing: bool = False
    """Recompute activations of the language model in the backward pass: less memory, slower."""
    encoder_checkpointing: bool = False
    """The same for the encoder; with a frozen encoder it has no effect. Losses and gradients stay the same."""
    cache_encoder: bool = False
    """Cache the frozen encoder's output on disk; needs training without augmentation."""
    checkpoint_every: int = Field(200, ge=1)
    """Steps between two checkpoints; each epoch also ends with one."""
    trackers: list[Literal["wandb", "tensorboard", "trackio"]] = []
    """Experiment trackers that receive the curves and results; wandb needs no account with WANDB_MODE=offline."""
    tracker_samples: Literal["none", "text", "audio"] = "none"
    """What trackers receive of the data: none sends figures only; text also terms, confused words and the transcripts
    of the worst clips; audio also the audio of these clips. See docs/trackers.md."""


class EvaluateSection(Section):
    normalizer: Literal[
        "none",
        "basic@2",
        "basic@1",
        "ja-cer@2",
        "ja-cer@1",
        "multi@1",
        "whisper-en@1",
        "openasr@2026-08",
        "openasr-multi@2026-08",
    ] = "basic@2"
    """Text normalizer before scoring; docs/scoring.md describes each."""
    replicas: int = Field(2000, ge=100, le=1_000_000)
    """Bootstrap replicas for each confidence interval."""
    groups: list[str] = ["speaker"]
    """Columns of the test manifest by which errors are grouped; duration, bandwidth and noise are always grouped."""
    probes: bool = True
    """Also transcribe eight clips without speech; every word of their transcripts is a hallucination."""
    keyword_lists: list[Annotated[int, Field(ge=0)]] = []
    """Keyword prompts to test: for each number N, a clip's own terms and N distractors, such as [0, 100, 1000]; term
    recall is reported for each and without keywords. Each N decodes the test clips once more with both models."""


class ExportSection(Section):
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Data type of the saved weights; auto is the data type of the base model's files."""
    clips: int = Field(16, ge=1)
    """Test clips on which the exported model is compared with the trained one."""
    tolerance: float = Field(1e-3, gt=0)
    """Largest allowed difference of logits between the merged float32 weights and the unmerged model."""
    shard_gb: float = Field(1.0, gt=0)
    """Largest size of a weights file, in GB (10^9 bytes)."""


class Recipe(Section):
    """Everything that a run depends on."""

    name: str
    """Name of the run directory below `runs`; a recipe file may leave it out: the file name is then used."""
    seed: int = Field(1, ge=0, le=2**32 - 1)
    """Seed of all random numbers."""
    runs: str = "runs"
    """Folder of the run directories."""
    model: ModelSection
    data: DataSection
    augment: AugmentSection = AugmentSection()
    keywords: KeywordsSection = KeywordsSection()
    parts: PartsSection = PartsSection()
    train: TrainSection = TrainSection()
    machine: MachineSection = MachineSection()
    decode: DecodingOptions = DecodingOptions()
    evaluate: EvaluateSection = EvaluateSection()
    export: ExportSection = ExportSection()
