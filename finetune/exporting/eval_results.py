"""`.eval_results/*.yaml` in an export: results on benchmark data sets, which the hub shows and ranks.

The format names a data set of the hub that is registered as a benchmark, and one of its tasks
(https://huggingface.co/docs/hub/eval-results). Results on other data are in the model card only.
"""

import re
from dataclasses import dataclass

import yaml

from finetune.core.data_config import CorpusEntry
from finetune.core.errors import RecipeError
from finetune.core.wording import count
from finetune.metrics.scores import SetScores
from finetune.report.wording import span

FOLDER = ".eval_results"
HUB, DEFAULT_TASK = "hf:", "default"
BENCHMARK = re.compile(r"([A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)(?::([\w.-]+))?")


@dataclass(frozen=True)
class Benchmark:
    """A data set of the hub, and the task as its `eval.yaml` names it."""

    dataset: str
    task: str


def parse_benchmark(text: str) -> Benchmark:
    """OWNER/DATASET or OWNER/DATASET:TASK. Raises RecipeError for another text."""
    match = BENCHMARK.fullmatch(text)
    if not match:
        raise RecipeError(f"{text[:200]!r} is not a benchmark of the hub; write OWNER/DATASET:TASK")
    return Benchmark(match[1], match[2] or DEFAULT_TASK)


def benchmark_of(test: list[CorpusEntry]) -> Benchmark | None:
    """The data set of a test split that is one whole split of the hub; None for other data.

    The name of the configuration stands for the task, as the hub's benchmarks do it; --benchmark names another.
    """
    if len(test) != 1 or not test[0].path.startswith(HUB) or test[0].max_clips is not None:
        return None
    name, *rest = test[0].path.removeprefix(HUB).split(":")
    return Benchmark(name, rest[0] if len(rest) > 1 else DEFAULT_TASK) if "/" in name else None


def eval_result(
    benchmark: Benchmark, scores: SetScores, date: str | None = None, with_terms: bool = False
) -> tuple[str, str]:
    """The file with the result of the set `test`: its WER (or CER) in per cent, or chrF for translations.

    Args:
        benchmark: What the test set is.
        scores: Of the exported model.
        date: Of the evaluation, in ISO 8601.
        with_terms: Whether the model was given a list of terms (`decode.terms`).

    Returns:
        Its path in the export, which has the names of data set and task, and its text.
    """
    metric, rate = (scores.error_name, scores.wer) if scores.chrf is None else ("chrF", scores.chrf)
    terms = ", with a list of terms" * with_terms
    interval = f", 95 % interval {span(scores.interval)}" if scores.chrf is None else ""
    entry = {
        "dataset": {"id": benchmark.dataset, "task_id": benchmark.task},
        "value": round(100 * rate, 2),
        **({"date": date} if date else {}),
        "notes": f"{metric} (%), normalizer {scores.normalizer}{interval}, {count(scores.utterances, 'clip')}{terms}",
    }
    name = f"{FOLDER}/{benchmark.dataset.split('/')[1]}-{benchmark.task}.yaml"
    return name, yaml.safe_dump([entry], sort_keys=False, allow_unicode=True, width=1000)
