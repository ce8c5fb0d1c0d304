"""`README.md` of an export: a model card for the hub that needs no editing, from the records of a run."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from finetune.core.config import Recipe
from finetune.core.model_limits import ModelLimits
from finetune.core.prompts import PromptProfile
from finetune.core.run_dir import RunDir, damage_is_an_error
from finetune.data.manifest import read_manifest
from finetune.data.normalizer_choice import scored_in_characters
from finetune.exporting.base_facts import BaseFacts, base_facts
from finetune.exporting.card.results import public_results, results_section, validation_section
from finetune.exporting.card.training import hub_sets, language_codes, training_section
from finetune.exporting.card.usage import engine_section, prompt_section
from finetune.exporting.data_facts import SplitFacts, data_facts, other_prompts
from finetune.metrics.normalizer import UNSPACED
from finetune.metrics.results import EvaluationResults, read_results
from finetune.metrics.scores import Scores
from finetune.report.facts import Overlap
from finetune.report.overlap import read_overlap
from finetune.training.state import TrainRecord
from finetune.version import __version__

TASK = "automatic-speech-recognition"
TAGS = ("granite-speech", "speech-recognition", "fine-tuned")
CITATION = """```bibtex
@software{{finetune_granite_speech,
  title = {{finetune-granite-speech: fine-tuning and domain adaptation for IBM Granite Speech}},
  author = {{The finetune-granite-speech developers}},
  version = {{{version}}},
}}
```

Cite the base model too: {base}.
"""


@dataclass(frozen=True)
class CardFormat:
    """What differs between the formats of an export.

    Attributes:
        library: Name of the library on the hub.
        relation: Relation to the base model on the hub.
        title: Appended to the name of the run.
        usage: How to run it, in Markdown.
    """

    library: str
    relation: str
    title: str
    usage: str


@dataclass(frozen=True)
class CardFacts:
    """What a card is made of."""

    recipe: Recipe
    base: BaseFacts
    data: Mapping[str, SplitFacts]
    record: TrainRecord | None
    results: EvaluationResults | None
    limits: ModelLimits
    profile: PromptProfile
    overlap: Overlap
    valid_in_characters: bool = False
    prompts: Mapping[str, int] = field(default_factory=dict)


def _has_translations(facts: CardFacts) -> bool:
    return "valid" in facts.data and bool(facts.data["valid"].translations)


def card_facts(recipe: Recipe, run: RunDir, base: Path, limits: ModelLimits, profile: PromptProfile) -> CardFacts:
    """The facts of a run.

    Args:
        recipe: Its recipe.
        run: Its directory.
        base: Folder of the files of the base model.
        limits: Those of the exported model.
        profile: The prompts of the model.

    Raises:
        CheckpointError: a record or the evaluation is damaged.
        DataError: a manifest is damaged.
    """
    with damage_is_an_error(run.root, "run `finetune prepare RECIPE` again"):
        overlap = read_overlap(run)
    return CardFacts(
        recipe=recipe,
        base=base_facts(recipe.model.base, recipe.model.revision, base),
        data=data_facts(run),
        record=run.result("train", TrainRecord) if run.done("train") else None,
        results=public_results(read_results(run.scores)) if run.scores.is_file() else None,
        limits=limits,
        profile=profile,
        overlap=overlap,
        prompts=other_prompts(run, recipe.model.instruction, profile),
        valid_in_characters=valid_in_characters(run, recipe.evaluate.normalizer),
    )


def valid_in_characters(run: RunDir, normalizer: str) -> bool:
    """Whether the error of the transcriptions of valid is a CER, as in `training.selection`.

    Raises:
        DataError: the manifest is damaged.
    """
    path = run.manifest("valid")
    spoken = [item for item in read_manifest(path) if not item.is_translation] if path.is_file() else []
    return bool(spoken) and (normalizer in UNSPACED or all(scored_in_characters(spoken)))


def model_card(facts: CardFacts, form: CardFormat) -> str:
    """The card, in Markdown with front matter."""
    recipe, base, results = facts.recipe, facts.base, facts.results
    header = yaml.safe_dump(_front_matter(facts, form), sort_keys=False, allow_unicode=True, width=1000)
    scores = results_section(results, recipe, facts.overlap) if results else None
    if scores is None:
        metric = "CER" if facts.valid_in_characters else "WER"
        scores = (
            validation_section(facts.record, metric, _has_translations(facts)) if facts.record else "Not evaluated.\n"
        )
    spoken = ", ".join(language_codes(facts.data)) or "not stated"
    keywords = facts.limits.keyword_prompts != "untrained"
    sections = {
        "Results": scores,
        "Prompt": prompt_section(recipe.model.instruction, facts.profile, keywords, facts.prompts),
        "Use": f"{form.usage}\n{engine_section({}, '', 0)}",
        "Training": training_section(recipe, base, facts.data, facts.record, results, __version__),
        "Limits": _limits(facts, spoken),
        "Citation": CITATION.format(version=__version__, base=_link(base)),
    }
    text = "\n".join(f"## {title}\n{body}" for title, body in sections.items())
    summary = f"{_link(base)}, fine-tuned for speech recognition (languages of the training data: {spoken})."
    return f"---\n{header}---\n# {recipe.name}{form.title}\n{summary}\n\n{text}"


def _front_matter(facts: CardFacts, form: CardFormat) -> dict[str, Any]:
    base, sets = facts.base, hub_sets([*facts.recipe.data.train, *facts.recipe.data.replay])
    languages = language_codes(facts.data)
    licenses = base.license.split(", ")
    stated = {
        "license": licenses if len(licenses) > 1 else base.license,
        "license_name": base.license_name,
        "license_link": base.license_link,
    }
    content: dict[str, Any] = {key: value for key, value in stated.items() if value}
    if base.hub:
        content |= {"base_model": base.hub, "base_model_relation": form.relation}
    content |= {"library_name": form.library, "pipeline_tag": TASK}
    content |= ({"language": languages} if languages else {}) | ({"datasets": sets} if sets else {})
    scores = facts.results.scores if facts.results else {}
    rows = {
        name: both.adapted
        for name, both in scores.items()
        if both.adapted.chrf is None and not both.adapted.without_words
    }
    metrics = list(dict.fromkeys(item.error_name.lower() for item in rows.values())) or [
        "cer" if facts.valid_in_characters else "wer"
    ]
    content |= {"tags": list(TAGS), "metrics": metrics}
    if rows:
        content["model-index"] = [
            {
                "name": facts.recipe.name,
                "results": [_indexed(*item, with_terms=bool(facts.recipe.decode.terms)) for item in rows.items()],
            }
        ]
    return content


def _indexed(name: str, scores: Scores, with_terms: bool) -> dict[str, Any]:
    """A result in the form of `model-index`, which needs no data set on the hub."""
    return {
        "task": {"type": TASK},
        "dataset": {"name": name, "type": "private"},
        "metrics": [
            {
                "type": scores.error_name.lower(),
                "value": round(100 * scores.wer, 2),
                "name": f"{scores.error_name} (%), {scores.normalizer}" + ", with a list of terms" * with_terms,
            }
        ],
    }


def _link(base: BaseFacts) -> str:
    return f"[{base.name}](https://huggingface.co/{base.hub})" if base.hub else f"`{base.name}`"


def _limits(facts: CardFacts, spoken: str) -> str:
    limits, instruction = facts.limits, facts.recipe.model.instruction
    window = limits.with_window(facts.recipe.decode).max_window
    lines = [
        f"- At most {window:g} s of speech in one piece; `finetune transcribe` cuts longer audio at pauses.",
        f"- Languages other than those of the training data ({spoken}) were not tested after the training.",
        "- The results hold for data like the test set; the verdict above says for which speakers.",
    ]
    if limits.keyword_prompts == "untrained":
        lines.append(
            "- Not trained with keywords in the prompt, where they can make the text worse; `finetune transcribe` uses "
            "them by the CTC head."
        )
    if limits.instruction:
        lines.append(f"- Trained with one instruction only: `{instruction}`.")
    if limits.no_speech:
        lines.append(
            f"- Audio with a speech score below {limits.no_speech:g} gets no text from `finetune transcribe`; other "
            "engines can make up words where nobody speaks."
        )
    if facts.results is None:
        lines[2] = "- Not evaluated: measure it on your own data before you use it."
    synthetic = [name for name, item in facts.data.items() if item.synthetic]
    if synthetic:
        lines.append(f"- {', '.join(synthetic)} have clips of synthetic voices, which say little about people.")
    return "\n".join(lines) + "\n"
