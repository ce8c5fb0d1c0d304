"""The overlap of the scored sets with the training data, which limits what a verdict says."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from finetune.core.files import read_json
from finetune.core.run_dir import RunDir
from finetune.metrics.results import EvaluationResults
from finetune.report.facts import Overlap


def read_overlap(run: RunDir) -> Overlap:
    """The overlap of test and canary with train and replay that `finetune prepare` finds; none without its file."""
    warnings = (
        {split: rows["warnings"] for split, rows in read_json(run.problems).items()} if run.problems.is_file() else {}
    )
    problems = {
        split: [item for item in items if item["kind"].endswith(("also in train", "also in replay"))]
        for split, items in warnings.items()
    }
    test = problems.get("test", [])
    kinds = {
        "sentences": ("sentence also in",),
        "audio": ("audio also in", "overlapping audio also in", "audio file also in"),  # the last one up to 0.2.0
    }
    clips = {key: {item["id"] for item in test if item["kind"].startswith(names)} for key, names in kinds.items()}
    return Overlap(
        clips=len(clips["sentences"] | clips["audio"]),
        sentences=len(clips["sentences"]),
        audio=len(clips["audio"]),
        speakers=_speakers(test),
        canary_speakers=_speakers(problems.get("canary", [])),
    )


def _speakers(problems: Iterable[Mapping[str, Any]]) -> int:
    speakers = (item["detail"] for item in problems if item["kind"].startswith("speaker also in"))
    return len({detail.partition(", as in ")[0] for detail in speakers})


def limited_to_speakers(results: EvaluationResults, overlap: Overlap) -> EvaluationResults:
    """The results, of which those on test hold for no other speakers if test speakers are in the training data.

    The same for canary.
    """
    trained = {"test": overlap.speakers, "canary": overlap.canary_speakers}
    if not any(trained.values()):
        return results
    differences = {
        name: replace(item, scope="these speakers")
        if trained.get(name.partition(":")[0]) and item.scope == "other speakers"
        else item
        for name, item in results.differences.items()
    }
    return results.model_copy(update={"differences": differences})
