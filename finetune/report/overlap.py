"""The overlap of the test set with the training data, which limits what a verdict says."""

from dataclasses import replace

from finetune.core.files import read_json
from finetune.core.run_dir import RunDir
from finetune.metrics.results import EvaluationResults
from finetune.report.facts import Overlap


def read_overlap(run: RunDir) -> Overlap:
    """The overlap of test with train and replay that `finetune prepare` reports; none if the file is not there."""
    warnings = read_json(run.problems)["test"]["warnings"] if run.problems.is_file() else []
    problems = [item for item in warnings if item["kind"].endswith(("also in train", "also in replay"))]
    prefixes = {
        "sentences": ("sentence also in",),
        "audio": ("audio also in", "overlapping audio also in", "audio file also in"),  # the last one up to 0.2.0
        "speakers": ("speaker also in",),
    }
    rows = {key: [item for item in problems if item["kind"].startswith(kinds)] for key, kinds in prefixes.items()}
    clips = {key: {item["id"] for item in items} for key, items in rows.items()}
    return Overlap(
        clips=len(clips["sentences"] | clips["audio"]),
        sentences=len(clips["sentences"]),
        audio=len(clips["audio"]),
        speakers=len({item["detail"].partition(", as in ")[0] for item in rows["speakers"]}),
    )


def limited_to_speakers(results: EvaluationResults, overlap: Overlap) -> EvaluationResults:
    """The results, in which a result on test holds for no other speakers if test speakers are in the training data."""
    if not overlap.speakers:
        return results
    differences = {
        name: replace(item, scope="these speakers")
        if name.partition(":")[0] == "test" and item.scope == "other speakers"
        else item
        for name, item in results.differences.items()
    }
    return results.model_copy(update={"differences": differences})
