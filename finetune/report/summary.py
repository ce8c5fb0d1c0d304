"""Formats the summary that a run prints at its end: WER, example sentences, the verdict, and the next step."""

import shlex
from collections.abc import Iterable
from pathlib import Path

from finetune.core.files import read_jsonl
from finetune.core.recipe import load_recipe
from finetune.core.run_dir import RunDir
from finetune.metrics.result_rows import UtteranceResult
from finetune.metrics.results import RunSummary, read_results
from finetune.report.clip_errors import gain
from finetune.report.overlap import read_overlap
from finetune.report.verdict import BAD, findings, known_speakers

EXAMPLES = 3
WORSE = ("Domain", "Translation", "General speech")  # findings that are read before the model is used
LABELS = {"test": "your domain (test)", "canary": "general speech (canary)"}
WIDTH = 36  # of the first column


def format_summary(run: RunDir, summary: RunSummary) -> str:
    """Scores of both models, the sentences that improve most, the verdict, paths, and the next step.

    The next step is to transcribe, or to read the advice of the report if domain or general speech are worse.
    """
    rates = {both.base.error_name for name in LABELS if (both := summary.scores.get(name)) and both.base.chrf is None}
    lines = ["", f"{'WER (%)' if 'WER' in rates else 'scores':{WIDTH}} {'base':>8} {'adapted':>9}"]
    for name, label in LABELS.items():
        if (scores := summary.scores.get(name)) and scores.base.chrf is None:
            if scores.base.without_words:
                label += f", {scores.base.inserted}"
                lines.append(f"{label:{WIDTH}} {scores.base.insertions:8} {scores.adapted.insertions:9}")
                continue
            label += ", CER" * (scores.base.error_name == "CER")
            lines.append(f"{label:{WIDTH}} {100 * scores.base.wer:8.1f} {100 * scores.adapted.wer:9.1f}")
            if plain := summary.without_terms.get(name):
                lines.append(f"{'  without decode.terms':{WIDTH}} {100 * plain.base:8.1f} {100 * plain.adapted:9.1f}")
    rows = [UtteranceResult(**row) for row in read_jsonl(run.utterances)]
    recipe, _ = load_recipe(run.resolved)
    verdict = findings(read_results(run.scores), read_overlap(run), recipe.train.max_canary_loss, known_speakers(rows))
    lines += [*_tasks(summary), *_terms(summary), "", *_examples(rows), "", "verdict:"]
    lines += [*(f"  {item.subject}: {item.headline}" for item in verdict), "", _speculation(summary)]
    if summary.report:
        lines.append(f"report: {summary.report}")
    lines.append(f"adapted model: {summary.export.dir}")
    first = next(row for row in rows if row.set.partition(":")[0] == "test")
    command = ["finetune", "transcribe", _relative(first.audio_filepath), "--model", str(summary.export.dir)]
    step = shlex.join([*command, *(["--translate-to", first.target_language] if first.target_language else [])])
    if worse := [item.subject.lower() for item in verdict if item.state == BAD and item.subject in WORSE]:
        report = summary.report or f"the report, which `finetune report {run.root}` writes"
        step = f"read the next steps in {report}, because of the verdict on {' and '.join(worse)}"
    lines.append(f"next: {step}")
    return "\n".join(lines)


def _tasks(summary: RunSummary) -> list[str]:
    """The first score of each task and language: WER, CER, or for translations BLEU, then chrF."""
    return [
        f"{f'{split}: {task.base.name}, {metric}':{WIDTH}} {100 * task.base.scores[metric].value:8.1f} "
        f"{100 * task.adapted.scores[metric].value:9.1f}"
        for split, tasks in summary.tasks.items()
        for task in tasks
        for metric in task.differences
    ]


def _terms(summary: RunSummary) -> list[str]:
    base, adapted = summary.scores["test"].base.terms, summary.scores["test"].adapted.terms
    if base is None or adapted is None:
        return []
    rows = (("seen", base.seen, adapted.seen), ("unseen", base.unseen, adapted.unseen))
    return [
        f"{f'term recall (%), {label} in training':{WIDTH}} {_percent(base_scores.recall):>8} "
        f"{_percent(adapted_scores.recall):>9}"
        for label, base_scores, adapted_scores in rows
        if adapted_scores.recall is not None
    ]


def _speculation(summary: RunSummary) -> str:
    decoders = summary.decoders
    same = "the same tokens" if decoders.tokens_equal else "NOT the same tokens"
    return (
        f"speculative against greedy decoding: {same}, {decoders.speculative_passes:.1f} instead of "
        f"{decoders.greedy_passes:.1f} LLM passes per utterance"
    )


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.0f}"


def _relative(path: str) -> str:
    """The path relative to the working directory, if the file is in it."""
    folder = Path.cwd()
    return str(Path(path).relative_to(folder)) if Path(path).is_relative_to(folder) else path


def _examples(rows: Iterable[UtteranceResult]) -> list[str]:
    """Reference and both hypotheses of the clips of the set test that improve most, one clip for each sentence."""
    improved = sorted((row for row in rows if row.set == "test" and gain(row) > 0), key=gain, reverse=True)
    if not improved:
        return ["no test clip has fewer errors with the adapted model"]
    most_improved = dict[str, UtteranceResult]()  # of each sentence
    for row in improved:
        most_improved.setdefault(row.text, row)
    lines = ["largest improvements:"]
    for row in list(most_improved.values())[:EXAMPLES]:
        lines += [f"reference  {row.text}", f"  base     {row.pred_text_base}", f"  adapted  {row.pred_text}"]
    return lines
