"""The part of a model card with base, data, settings, training time and software. It names no file of the data."""

from collections.abc import Mapping
from typing import Literal

from finetune.core.config import PartsSection, Recipe
from finetune.core.data_config import CorpusEntry
from finetune.core.languages import SPEECH_LANGUAGES, TRANSLATION_TARGETS, row_language
from finetune.core.wording import count
from finetune.exporting.base_facts import BaseFacts
from finetune.exporting.data_facts import SplitFacts
from finetune.metrics.results import EvaluationResults
from finetune.training.state import TrainRecord

MINUTE, HOUR = 60, 3600  # seconds
HUB = "hf:"  # start of a corpus on the hub


def training_section(
    recipe: Recipe,
    base: BaseFacts,
    data: Mapping[str, SplitFacts],
    record: TrainRecord | None,
    results: EvaluationResults | None,
    toolkit: str,
) -> str:
    """All of it, as lists and a table of the data."""
    origin = f"`{base.name}`" + (f", revision `{base.revision}`" if base.revision else "")
    through = f", through the first stage `{base.first_stage}`" if base.first_stage else ""
    details = ", ".join(filter(None, [base.license_name, base.license_link]))
    licence = (base.license or "not stated by the base model") + (f" ({details})" if details else "")
    lines = [
        f"- Base model: {origin}{through}; licence: {licence}.",
        f"- Trained: {', '.join(trained_parts(recipe.parts))}"
        + (f" ({record.trained_parameters:,} of {record.total_parameters:,} parameters)." if record else "."),
        f"- Settings: {'; '.join(_settings(recipe, record))}. `adaptation.json` has all settings.",
        *_time(record),
        f"- Software: finetune {toolkit}"
        + (f", {', '.join(f'{name} {item}' for name, item in results.provenance.libraries.items())}." * bool(results))
        if results
        else f"- Software: finetune {toolkit}.",
    ]
    if sets := hub_sets([*recipe.data.train, *recipe.data.replay]):
        lines.append(f"- Data sets of the hub: {', '.join(f'`{name}`' for name in sets)}.")
    return "\n".join([*lines, "", *_data_table(data), ""])


def hub_sets(entries: list[CorpusEntry]) -> list[str]:
    """The names of the corpora that are data sets of the hub."""
    return sorted({entry.path.removeprefix(HUB).split(":")[0] for entry in entries if entry.path.startswith(HUB)})


def language_codes(data: Mapping[str, SplitFacts]) -> list[str]:
    """The codes of the languages of the training data, most hours first; without those that the rows do not state."""
    hours = data["train"].languages if "train" in data else {}
    return list(dict.fromkeys(code for name in hours if (code := row_language(name))))


def trained_parts(parts: PartsSection) -> list[str]:
    """What trained, in words."""
    texts = [f"{parts.lora.variant} of rank {parts.lora.rank} in the language model"] * bool(parts.lora.rank)
    texts += [f"{_last(parts.language_model.layers, 'layer')} of the language model"] * bool(
        parts.language_model.layers
    )
    for name, part in (("projector", parts.projector), ("encoder", parts.encoder)):
        where = f"{_last(parts.encoder.blocks, 'block')} of the encoder" if name == "encoder" else "projector"
        if part.mode == "full":
            texts.append(where)
        elif part.mode == "lora":
            texts.append(f"LoRA of rank {part.rank} in {where}")
    texts += [name for name, part in (("CTC head", parts.ctc_head), ("lm_head", parts.lm_head)) if part.mode == "full"]
    return texts or ["nothing"]


def _last(number: int | Literal["all"], noun: str) -> str:
    return f"all {noun}s" if number == "all" else f"the last {count(number, noun)}"


def _settings(recipe: Recipe, record: TrainRecord | None) -> list[str]:
    train, augment = recipe.train, recipe.augment
    settings = [f"goal {train.goal}"] * bool(train.goal)
    settings += [count(train.epochs, "epoch")]
    settings += [count(record.steps, "step"), f"best epoch {record.best_epoch}"] if record else []
    settings += [f"learning rate {train.learning_rate:g}", f"batches of {train.batch_seconds:g} s"]
    if record and record.best_alpha < 1:
        settings.append(f"interpolated with the base: alpha {record.best_alpha:g}")
    if changed := sorted(augment.model_dump(exclude_defaults=True)):
        settings.append(f"augmentation ({', '.join(changed)})")
    return [*settings, *(["keywords in prompts"] * recipe.keywords.sampled), f"seed {recipe.seed}"]


def _time(record: TrainRecord | None) -> list[str]:
    if record is None:
        return []
    seconds = record.seconds
    text = f"{seconds / HOUR:.1f} hours" if seconds >= HOUR else f"{seconds / MINUTE:.1f} minutes"
    return [f"- Training time: {text}; after an interruption, that of the last part."]


def _data_table(data: Mapping[str, SplitFacts]) -> list[str]:
    if not data:
        return []
    lines = [
        "| split | clips | hours | languages (hours) | speakers | synthetic voices | texts by a model | translations |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for split, item in data.items():
        languages = ", ".join(f"{_language(name)} {hours_text(hours)}" for name, hours in item.languages.items())
        counts = (item.speakers, item.synthetic, item.pseudo_labels, item.translations)
        lines.append(
            f"| {split} | {item.clips:,} | {hours_text(item.hours)} | {languages} | "
            f"{' | '.join(f'{number:,}' for number in counts)} |"
        )
    return lines


def hours_text(hours: float) -> str:
    """1,234.5 or 0.0123."""
    return f"{hours:,.1f}" if hours >= 10 else f"{hours:.3g}"


def _language(name: str) -> str:
    known = {**SPEECH_LANGUAGES, **TRANSLATION_TARGETS}
    return known.get(row_language(name), name) if name else "not stated"
