"""What the data of a run is, for its model card: clips, hours, languages, and what machines spoke or wrote."""

from collections import Counter, defaultdict
from collections.abc import Mapping
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from finetune.core.files import stream_jsonl
from finetune.core.prompts import TRANSLATE, PromptProfile
from finetune.core.run_dir import RunDir
from finetune.data.manifest import PROMPT_COLUMNS
from finetune.data.pseudo_labels import COLUMN as PSEUDO_LABEL
from finetune.data.row_prompt import prompt_text
from finetune.data.splits import SPLITS
from finetune.evaluation.synthetic import YES


class SplitFacts(BaseModel):
    """The clips of a split.

    Attributes:
        clips: Number of clips.
        hours: Their duration.
        languages: Hours by spoken language; "" is a language that the rows do not state.
        translations: Clips whose text is a translation.
        speakers: Number of speakers that the rows name.
        synthetic: Clips of synthetic voices, by their column `synthetic`.
        pseudo_labels: Clips whose text a model wrote.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    clips: int
    hours: float
    languages: dict[str, float]
    translations: int
    speakers: int
    synthetic: int
    pseudo_labels: int


def data_facts(run: RunDir) -> dict[str, SplitFacts]:
    """The facts of each split that has a manifest. Raises DataError if a manifest is damaged."""
    paths = {split: run.manifest(split) for split in SPLITS}
    return {split: split_facts(path) for split, path in paths.items() if path.is_file()}


def split_facts(manifest: Path) -> SplitFacts:
    """The facts of one manifest. Only one row and the names of speakers are in memory."""
    clips = translations = synthetic = pseudo_labels = 0
    languages, speakers = defaultdict[str, float](float), set[str]()
    for _, row in stream_jsonl(manifest):
        clips += 1
        languages[str(row.get("language") or "")] += float(row["duration"]) / 3600
        translations += row.get("task") == TRANSLATE
        synthetic += str(row.get("synthetic", "")).strip().lower() in YES
        pseudo_labels += row.get(PSEUDO_LABEL) is True
        if speaker := row.get("speaker"):
            speakers.add(str(speaker))
    return SplitFacts(
        clips=clips,
        hours=round(sum(languages.values()), 4),
        languages={name: round(hours, 4) for name, hours in sorted(languages.items(), key=lambda item: -item[1])},
        translations=translations,
        speakers=len(speakers),
        synthetic=synthetic,
        pseudo_labels=pseudo_labels,
    )


def other_prompts(run: RunDir, instruction: str, profile: PromptProfile) -> Mapping[str, int]:
    """The instructions of train and replay that are not the one of the recipe, with their clips, most frequent first.

    Args:
        run: The run.
        instruction: That of the recipe.
        profile: The prompts of the model.

    Raises:
        DataError: a manifest is damaged.
    """
    clips = Counter[tuple[str, ...]]()
    for path in filter(Path.is_file, (run.manifest("train"), run.manifest("replay"))):
        clips.update(tuple(str(row.get(name) or "") for name in PROMPT_COLUMNS) for _, row in stream_jsonl(path))
    prompts = Counter[str]()
    for columns, number in clips.items():
        prompts[prompt_text(columns, instruction, profile)] += number
    del prompts[instruction]
    return dict(prompts.most_common())
