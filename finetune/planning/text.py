"""The result of `finetune check` as text for a terminal."""

from collections.abc import Collection, Iterable, Iterator
from datetime import timedelta

from finetune.core.wording import count, length_text, verb
from finetune.planning.disk import gigabytes
from finetune.planning.memory import MemoryPlan
from finetune.planning.overlap import LeakCount
from finetune.planning.result import CheckResult

LABEL = 12  # width of the first column
ALL, CHANGED = "settings:", "settings that differ from the defaults (--settings lists all):"

LONGEST = 300  # characters of a value, such as a list of terms; `--json` has all


def format_check(
    result: CheckResult, batch_seconds: float, batch_tokens: int, changed: Collection[str] | None
) -> list[str]:
    """All lines, in sections; the settings come last.

    Args:
        result: the result.
        batch_seconds: `train.batch_seconds`.
        batch_tokens: `train.batch_tokens`.
        changed: keys of the settings that are listed; None lists all.
    """
    lines = list[str]()
    for title, section in (
        ("", result.model.lines() if result.model else ()),
        ("data:", [*result.corpora, *_splits(result)]),
        ("also in another split, as rows state it:", _leaks(result.leaks)),
        ("training:", _training(result, batch_seconds, batch_tokens)),
        ("memory of a training step (estimate):", _memory(result.memory)),
        ("disk:", _disk(result)),
        ("", [f"hint: {hint}" for hint in result.hints]),
        (ALL if changed is None else CHANGED, _settings(result, changed)),
    ):
        if content := list(section):
            lines += [*([""] if lines else []), *([title] if title else []), *content]
    return lines


def _settings(result: CheckResult, changed: Collection[str] | None) -> Iterator[str]:
    shown = [item for item in result.settings if changed is None or item.key in changed]
    width = max((len(item.key) for item in shown), default=0)
    for item in shown:
        value = item.value if len(item.value) <= LONGEST else f"{item.value[:LONGEST]} ..."
        yield f"{item.key:{width}}  {value:48} {item.origin}"


def _row(label: str, text: str) -> str:
    return f"{label:{LABEL}}{text}"


def _splits(result: CheckResult) -> Iterator[str]:
    for name, split in result.splits.items():
        speakers = f", {count(split.speakers, 'speaker')}" if split.speakers else ", no speakers"
        bad = split.out_of_range
        out = f"; {count(bad, 'row')} {verb(bad, 'is', 'are')} too short or too long" if bad else ""
        unstated = split.rows - split.stated
        headers = f"; {count(unstated, 'duration')} {verb(unstated, 'is', 'are')} from headers" if unstated else ""
        yield _row(name, f"{length_text(split.hours)}{speakers}{out}{headers}")
    if counts := [*result.terms.values()]:
        known = f"{sum(map(bool, counts)):,} of {len(counts):,} occur in train or replay"
        yield _row("terms", f"{known}, {count(sum(counts), 'time')}")


def _leaks(leaks: Iterable[LeakCount]) -> Iterator[str]:
    """One line for each kind in each scored split."""
    groups = dict[tuple[str, str], list[LeakCount]]()
    for leak in leaks:
        groups.setdefault((leak.scored, leak.kind), []).append(leak)
    for (scored, kind), group in groups.items():
        numbers = ", ".join(f"{leak.clips:,} in {leak.source}" for leak in group)
        yield _row(scored, f"{kind}: {numbers}; such as {group[-1].example}")


def _training(result: CheckResult, batch_seconds: float, batch_tokens: int) -> Iterator[str]:
    if result.processes:
        yield _row("processes", result.processes)
    if result.unknown:
        yield _row("steps", f"unknown: {result.unknown}")
    if (plan := result.steps) is None:
        return
    about = "" if plan.exact else "about "
    yield _row(
        "steps",
        f"{about}{plan.steps:,} in {count(plan.epochs, 'epoch')} "
        f"({about}{round(plan.steps / plan.epochs):,} an epoch), {count(plan.batches, 'batch', 'batches')} of "
        f"up to {batch_seconds:g} s",
    )
    yield _row(
        "audio",
        f"{about}{length_text(plan.hours)} in all epochs, longest clip {plan.longest_clip:.1f} s, "
        f"{plan.longest_row} positions (limit {batch_tokens})",
    )
    yield _row("padding", f"{100 * plan.padding:.1f} % of the padded audio; {about}{plan.tokens:,} target tokens")
    if result.time is not None:
        yield from _time(result)


def _time(result: CheckResult) -> Iterator[str]:
    plan = result.time
    if plan is None or plan.steps is None:
        yield _row("time", f"unknown until the first steps: {plan.source if plan else ''}")
        return
    more = ", without validation" if plan.validation is None else f", and {_clock(plan.validation)} for validation"
    yield _row("time", f"about {_clock(plan.steps)} for the steps{more} ({plan.source})")


def _clock(seconds: float) -> timedelta:
    return timedelta(seconds=round(seconds))


def _memory(plans: Iterable[MemoryPlan]) -> Iterator[str]:
    for plan in plans:
        here = f"; {gigabytes(plan.available)} are here" if plan.available is not None else ""
        each = f" in each of {plan.processes} processes" if plan.processes > 1 else ""
        size = f"{gigabytes(plan.low)} to {gigabytes(plan.high)}"
        yield _row(plan.device, f"{size} with {plan.dtype} weights{each}{here}")
        parts = (
            (plan.weights, "frozen weights"),
            (plan.trained, "trained"),
            (plan.gradients, "gradients"),
            (plan.moments, "AdamW"),
            (plan.activations, "activations of the largest batch"),
            (plan.loss, "logits"),
            (plan.encoder, "attention of the encoder"),
        )
        yield _row("", ", ".join(f"{gigabytes(size)} {name}" for size, name in parts if size))
        for number, less in enumerate(plan.less):
            yield _row(
                "", f"{'and' if number else 'with'} {less.setting}: {gigabytes(less.low)} to {gigabytes(less.high)}"
            )


def _disk(result: CheckResult) -> Iterator[str]:
    if (plan := result.disk) is None:
        return
    sizes = (
        (plan.manifests, "manifests"),
        (plan.cache, "encoder cache"),
        (plan.checkpoints, "checkpoints"),
        (plan.best, "best adapter"),
        (plan.export, "export"),
    )
    total = sum(size for size, _ in sizes)
    parts = ", ".join(f"{gigabytes(size)} {name}" for size, name in sizes if size)
    yield _row("needed", f"up to {gigabytes(total)}: {parts}")
    written = f"; {gigabytes(plan.present)} of the run are written already" if plan.present else ""
    yield _row("free", f"{gigabytes(plan.free)} in {plan.folder}{written}")
