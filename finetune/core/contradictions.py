"""Checks for settings of a recipe that contradict each other; a check of one field cannot find these."""

from collections.abc import Iterator
from unicodedata import category

from finetune.core.config import AugmentSection, Recipe
from finetune.core.data_config import CorpusEntry, DataSection
from finetune.core.keyword_list import CONTROL_TOKEN
from finetune.core.languages import row_language, suggested_language
from finetune.core.options import MAX_KEYWORDS
from finetune.core.prompts import TRANSCRIBE, TRANSLATE, prompt_problem, stated_task

MAX_NAME, MAX_INSTRUCTION = 100, 10_000  # characters


def contradictions(recipe: Recipe) -> list[tuple[str, str]]:
    """The contradictions, each as (dotted key, message)."""
    problems = [
        *_parts(recipe),
        *_data(recipe),
        *_corpora(recipe.data),
        *_keywords(recipe),
        *_terms(recipe),
        *_cache(recipe),
    ]
    name, instruction = recipe.name, recipe.model.instruction
    if not 0 < len(name) <= MAX_NAME or {"/", "\0"} & {*name} or name.startswith("."):
        text = f"must be a folder name without slashes of at most {MAX_NAME} characters and must not start with a dot"
        problems.append(("name", text))
    if len(instruction) > MAX_INSTRUCTION or any(category(char) == "Cs" for char in instruction):
        problems.append(("model.instruction", f"must be text in UTF-8 of at most {MAX_INSTRUCTION} characters"))
    return problems


def _parts(recipe: Recipe) -> Iterator[tuple[str, str]]:
    parts, train = recipe.parts, recipe.train
    modes = [part.mode for part in (parts.projector, parts.encoder, parts.ctc_head, parts.lm_head)]
    if not (parts.lora.rank or parts.language_model.layers or any(mode != "frozen" for mode in modes)):
        yield "parts.lora.rank", "nothing would be trained; set a rank above 0, or train another part"
    if parts.lora.rank and not parts.lora.modules:
        yield "parts.lora.modules", "LoRA needs at least one module; to train without LoRA, set parts.lora.rank to 0"
    if recipe.model.quantize == "4bit" and parts.lora.rank and parts.lora.variant == "dora":
        yield (
            "parts.lora.variant",
            "DoRA learns the row norms of the 4-bit weights, which differ from those of the weights that it is merged "
            "into; set lora or rslora, or model.quantize: none",
        )
    if recipe.model.quantize == "4bit" and parts.language_model.layers:
        yield (
            "parts.language_model.layers",
            "layers with 4-bit weights cannot train in full; set 0, or model.quantize: none",
        )
    if train.optimizer == "adamw-8bit" and recipe.machine.shard_optimizer:
        yield "train.optimizer", "8-bit moments cannot be divided over processes; set machine.shard_optimizer: false"
    if train.ctc_weight and parts.encoder.mode == parts.ctc_head.mode == "frozen":
        yield (
            "train.ctc_weight",
            "the CTC loss trains the encoder or its CTC head; set parts.encoder.mode or parts.ctc_head.mode",
        )
    if parts.ctc_head.mode == "full" and not train.ctc_weight:
        yield "parts.ctc_head.mode", "the CTC head trains on the CTC loss only; set train.ctc_weight above 0"


def _data(recipe: Recipe) -> Iterator[tuple[str, str]]:
    train, data = recipe.train, recipe.data
    if bool(data.train) != bool(data.valid):
        yield (
            f"data.{'valid' if data.train else 'train'}",
            "is missing; training needs data.train, and data.valid to choose the best adapter",
        )
    if data.min_duration >= data.max_duration:
        yield "data.min_duration", "must be below data.max_duration"
    if recipe.augment.concat and data.max_duration > train.batch_seconds:
        yield (
            "train.batch_seconds",
            f"must be at least data.max_duration ({data.max_duration:g}), because augment.concat makes clips of up to "
            "that length",
        )
    low, high = recipe.augment.noise_snr
    if low > high:
        yield "augment.noise_snr", f"the lowest SNR, {low:g} dB, must come before the highest, {high:g} dB"
    if not row_language(data.text.language):
        hint = suggested_language(data.text.language)
        yield "data.text.language", "must be a language code such as en or de" + (f"; {hint}?" if hint else "")
    if any(not tag.strip() for tag in data.text.extra_tags):
        yield "data.text.extra_tags", "has an empty entry"
    if train.max_canary_loss is not None and not data.canary:
        yield "train.max_canary_loss", "is measured on data.canary, which is empty; set data.canary"


def _corpora(data: DataSection) -> Iterator[tuple[str, str]]:
    for split in ("train", "valid", "test", "canary", "replay"):
        for entry in getattr(data, split):
            if problem := _entry_problem(entry, split, data.too_long):
                yield f"data.{split}", f"{entry.path}: {problem}"


def _entry_problem(entry: CorpusEntry, split: str, too_long: str) -> str:
    """What is wrong with the settings of a corpus; "" if nothing is."""
    if entry.weight != 1 and split not in ("train", "replay"):
        return "weight has no effect on clips that are only scored; remove it"
    if entry.language and not row_language(entry.language):
        hint = suggested_language(entry.language)
        return f"language {entry.language!r} must be a language code such as en or de" + (f"; {hint}?" if hint else "")
    target = entry.target_language
    if entry.task == TRANSCRIBE and target and row_language(target) != row_language(entry.language):
        return f"target_language {target!r} has no effect on task {TRANSCRIBE}; remove one of the two"
    try:
        _, target = stated_task(entry.task or "", entry.language, entry.target_language)
    except ValueError as error:
        if entry.target_language:  # otherwise it can be a column
            return str(error)
        target = ""
    if entry.target_language and (problem := prompt_problem(target, "", entry.instruction)):
        return problem
    if too_long == "segment" and split == "train" and (entry.task == TRANSLATE or entry.text_column):
        return "data.too_long: segment aligns speech with its transcript; set drop, or prepare this corpus by itself"
    return ""


def _keywords(recipe: Recipe) -> Iterator[tuple[str, str]]:
    shares = recipe.keywords.true_terms + recipe.keywords.distractors
    if shares > 1:
        yield "keywords.distractors", f"and keywords.true_terms are shares of all prompts; their sum is {shares:g}"
    if recipe.keywords.copy_weight and recipe.machine.gradient_checkpointing:
        yield "keywords.copy_weight", "needs activations that machine.gradient_checkpointing does not keep"


def _terms(recipe: Recipe) -> Iterator[tuple[str, str]]:
    """Terms with which the export could transcribe nothing."""
    terms = recipe.decode.terms
    if len(terms) > MAX_KEYWORDS:
        yield "decode.terms", f"has {len(terms):,} terms; the CTC head searches for at most {MAX_KEYWORDS:,}"
    if match := next(filter(None, map(CONTROL_TOKEN.search, terms)), None):
        yield "decode.terms", f"contains {match[0]}, which is a command for the model; remove it"


def _cache(recipe: Recipe) -> Iterator[tuple[str, str]]:
    parts = recipe.parts
    # What turns augmentation on is off by default; ranges and probabilities are not.
    switches = [name for name, field in AugmentSection.model_fields.items() if not field.default]
    augments = any(getattr(recipe.augment, name) for name in switches)
    if recipe.machine.cache_encoder and augments:
        yield (
            "machine.cache_encoder",
            "augmented audio differs in every epoch and cannot be cached; set all of augment to 0, or turn the cache "
            "off",
        )
    if recipe.machine.cache_encoder and (parts.encoder.mode != "frozen" or parts.ctc_head.mode != "frozen"):
        yield "machine.cache_encoder", "the encoder or its CTC head trains, so its output changes; turn the cache off"
