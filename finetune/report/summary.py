"""What a finished run says to a person who has never seen one."""

from pathlib import Path
from typing import Any

from finetune.core.files import read_jsonl
from finetune.core.run_dir import RunDir
from finetune.metrics.wer import errors_per_utterance

EXAMPLES = 3


def format_summary(run: RunDir, summary: dict[str, Any]) -> str:
    """WER of base and adapted, what was heard before and after, where the model lies, what to type next."""
    lines = ["", f"{'words wrong, in 100':28} {'base':>8} {'adapted':>9}"]
    for split, label in (("test", "your domain (test)"), ("canary", "general speech (canary)")):
        if split in summary:
            base, adapted = (100 * summary[split][which]["wer"] for which in ("base", "adapted"))
            lines.append(f"{label:28} {base:8.1f} {adapted:9.1f}")
    terms = summary["test"]["adapted"].get("terms")
    for kind in ("seen", "unseen") if terms else ():
        before, after = (summary["test"][which]["terms"][kind]["recall"] for which in ("base", "adapted"))
        if after is not None:
            lines.append(f"{f'terms heard, {kind} in training':28} {_percent(before):>8} {_percent(after):>9}")
    lines += ["", *_examples(run), ""]
    decode = summary["decode"]
    same = "the same tokens" if decode["tokens_equal"] else "NOT the same tokens"
    lines.append(
        f"speculative decoding: {same} as greedy, {decode['speculative_passes']:.1f} LLM passes a clip "
        f"instead of {decode['greedy_passes']:.1f}"
    )
    if summary["report"]:
        lines.append(f"report: {summary['report']}")
    lines.append(f"adapted model: {summary['export']['dir']}")
    audio = read_jsonl(run.hypotheses("test", "adapted"))[0]["audio_filepath"]
    lines.append(f"next: finetune transcribe {_short(audio)} --model {summary['export']['dir']}")
    return "\n".join(lines)


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.0f} %"


def _short(path: str) -> str:
    here = Path.cwd()
    return str(Path(path).relative_to(here)) if Path(path).is_relative_to(here) else path


def _examples(run: RunDir) -> list[str]:
    """The clips that gained the most, with reference, before and after."""
    base, adapted = (read_jsonl(run.hypotheses("test", which)) for which in ("base", "adapted"))
    references = [row["text"] for row in base]
    before, after = (
        errors_per_utterance(references, [row["pred_text"] for row in rows], "basic@1") for rows in (base, adapted)
    )
    gains = sorted(range(len(base)), key=lambda i: after[i][0] - before[i][0])
    first = {references[index]: index for index in reversed(gains)}  # one clip of each sentence, the best
    lines = ["the sentences that gained most:"]
    for index in sorted(first.values(), key=gains.index)[:EXAMPLES]:
        lines += [
            f"said     {references[index]}",
            f"  base     {base[index]['pred_text']}",
            f"  adapted  {adapted[index]['pred_text']}",
        ]
    return lines
