"""How much of what each stage of the build trains on."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from finetune.core.config import AugmentSection, KeywordsSection
from nano.rounds import Shares
from nano.scaffold import Sizes
from nano.stage import Schedule

LANGUAGES = {"en": 0.4, "es": 0.14, "fr": 0.14, "pt": 0.12, "de": 0.12, "ja": 0.08}  # share of the audio
ENGINES = {"kokoro": 2.0, "espeak-ng": 0.8}  # natural voices more often, others less


@dataclass(frozen=True)
class Plan:
    """What the build does; a test makes a small one.

    Attributes:
        sizes: of the model; None trains the model of `--start` itself further, with its tokenizer.
        schedules: steps and learning rate of each stage.
        effects: what is done to clips.
        keywords: how often prompts have keywords.
        encoder_shares, task_shares: what is drawn for the first stage, and for those with tasks.
        hours, variants: audio of a variant of stored states, and their number.
        encoder_limits: padded seconds of a batch of the first stage.
        text_limits: padded tokens of a batch of sentences.
        align_limits, together_limits: padded seconds and tokens of a batch.
        text_copies, copies: rows that are copied, in a batch of the text stage and of the stages after it.
        text_spelled, spelled: rows that are spelled, in a batch of their own stage and of the stages after it.
        attention_weight, token_weight: of the losses of attention to the audio, and of tokens in audio embeddings.
        round_seconds, round_items: audio or examples of a round.
        max_new_tokens: of a text, in scores.
        kept: share of the weights of `--start` in the result of further training.
    """

    sizes: Sizes | None
    schedules: Mapping[str, Schedule]
    effects: AugmentSection
    keywords: KeywordsSection
    encoder_shares: Shares
    task_shares: Shares
    hours: float
    variants: int
    encoder_limits: tuple[float]
    text_limits: tuple[float]
    align_limits: tuple[float, float]
    together_limits: tuple[float, float]
    text_copies: int
    copies: int
    text_spelled: int
    spelled: int
    attention_weight: float
    token_weight: float
    round_seconds: float
    round_items: int
    max_new_tokens: int
    kept: float


PLAN = Plan(
    sizes=Sizes(),
    schedules={
        "encoder": Schedule(4000, 2.5e-3),
        "text": Schedule(600, 2e-3, 1.0),
        "spelled": Schedule(160, 1.5e-3, 1.0),
        "align": Schedule(600, 1.2e-3, 1.0),
        "together": Schedule(1000, 5e-4),
        "cool": Schedule(200, 4e-4),
    },
    effects=AugmentSection(
        speed=0.12,  # shifts the pitch too: more voices than the synthesizers have
        mel_mask=8,
        time_mask=8,
        noise=["white", "pink", "brown", "hum", "clicks", "music", "babble", "babble"],
        noise_probability=0.3,
        noise_snr=[5.0, 35.0],
        rooms=["simulated"],
        room_probability=0.25,
        telephone=0.2,
        codecs=["mu-law", "a-law", "gsm", "opus", "mp3"],
        codec_probability=0.1,
        clipping=0.03,
    ),
    keywords=KeywordsSection(true_terms=0.4, distractors=0.2, largest=100),
    encoder_shares=Shares(LANGUAGES, {"phrase": 0.6}, ENGINES, joined=0.04, no_speech=0.01),
    task_shares=Shares(LANGUAGES, {}, ENGINES, joined=0.12, no_speech=0.05),
    hours=16.0,
    variants=2,
    encoder_limits=(64.0,),
    text_limits=(4500.0,),
    align_limits=(160.0, 6000.0),
    together_limits=(72.0, 5000.0),
    text_copies=20,
    copies=8,
    text_spelled=64,
    spelled=12,
    attention_weight=1.0,
    token_weight=1.0,
    round_seconds=6 * 3600.0,
    round_items=6000,
    max_new_tokens=120,
    kept=0.0,
)

FURTHER = replace(  # in English only; the model follows its audio already
    PLAN,
    sizes=None,
    schedules={"together": Schedule(1800, 7e-4), "cool": Schedule(200, 3e-4)},
    effects=PLAN.effects.model_copy(update={"telephone": 0.3, "noise_probability": 0.35}),
    keywords=KeywordsSection(true_terms=0.16, distractors=0.08, largest=60),
    task_shares=Shares(
        {"en": 1.0},
        {"phrase": 0.3},
        {"kokoro": 6.0, "flite": 2.0, "espeak-ng": 2.0, "rhvoice": 1.5},
        joined=0.15,
        no_speech=0.05,
    ),
    together_limits=(80.0, 6000.0),
    copies=4,
    spelled=0,
    attention_weight=0.1,
    token_weight=0.0,
    round_seconds=3 * 3600.0,
    kept=0.3,
)


def scaled(plan: Plan, factor: float) -> Plan:
    """The plan with another number of steps."""
    steps = {name: replace(item, steps=max(1, round(item.steps * factor))) for name, item in plan.schedules.items()}
    return replace(plan, schedules=steps)
