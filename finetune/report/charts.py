"""Draws plots as inline SVG: text stays text, and colours follow the light or dark theme of the page.

matplotlib is imported for the first plot and opens no window.
"""

import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from finetune.metrics.groups import GroupTable
from finetune.report.wording import percent

WIDTH, HEIGHT = 5.0, 3.1  # inches of 72 points; the page scales plots down on small screens
# Placeholder colours; `to_svg` replaces each by a variable of the style sheet.
INK, FAINT, LINE, BASE, ADAPTED, THIRD = "#010101", "#020202", "#030303", "#040404", "#050505", "#060606"
VARIABLES = {INK: "--ink", FAINT: "--faint", LINE: "--line", BASE: "--base", ADAPTED: "--adapted", THIRD: "--third"}


@dataclass(frozen=True)
class Chart:
    """A plot with its title, a sentence about its content, and its numbers as a table."""

    title: str
    text: str
    svg: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True)
class ValidationPoint:
    """WER (fractions) after a training step; `canary_wer` is None without a canary set."""

    step: int
    wer: float
    canary_wer: float | None


def by_duration(table: GroupTable, metric: str) -> Chart:
    """Error rate of both models by bins of duration, with intervals; `metric` is its name."""
    rows = [row for row in table.rows if row.words]
    figure, axes = new_axes(f"{metric} (%)")
    for system, colour, marker, shift in (("base", BASE, "s", -0.09), ("adapted", ADAPTED, "o", 0.09)):
        wers = [100 * row.wer[system] for row in rows]
        bars = [
            [max(0.0, wer - 100 * row.interval[system].low) for wer, row in zip(wers, rows, strict=True)],
            [max(0.0, 100 * row.interval[system].high - wer) for wer, row in zip(wers, rows, strict=True)],
        ]
        axes.errorbar(
            [position + shift for position in range(len(rows))],
            wers,
            bars,
            fmt=f"{marker}-",
            color=colour,
            capsize=3,
            linewidth=1.2,
            markersize=5,
            label=system,
        )
    axes.set_xlim(-0.6, len(rows) - 0.4)
    names = [row.name.replace(" and more", "+").replace("below ", "< ").replace(" to ", "–") for row in rows]
    axes.set_xticks(range(len(rows)), names)
    axes.set_ylim(bottom=0)
    figure.legend(loc="outside upper left", ncols=2)
    return Chart(
        f"{metric} by duration",
        f"{metric} by duration of the clips, with 95 % intervals.",
        to_svg(figure, "duration"),
        (
            "duration",
            "clips",
            "characters" if metric == "CER" else "words",
            f"base {metric} (%)",
            f"adapted {metric} (%)",
        ),
        [
            (row.name, str(row.clips), str(row.words), percent(row.wer["base"]), percent(row.wer["adapted"]))
            for row in rows
        ],
    )


def learning_curve(
    losses: Sequence[tuple[int, float]], scores: Sequence[ValidationPoint], metrics: tuple[str, str]
) -> Chart:
    """Training loss by step (smoothed), and error rates on valid and canary.

    Args:
        losses: step and loss of each record.
        scores: validations in the order of their steps.
        metrics: names of the error rates of valid and canary.
    """
    (first, second), title = metrics, " and ".join(dict.fromkeys(metrics))
    smooth, value = [], losses[0][1]
    decay = max(0.0, 1 - 10 / len(losses))
    for step, loss in losses:
        value = decay * value + (1 - decay) * loss
        smooth.append((step, value))
    figure, axes = new_axes("loss")
    axes.set_xlabel("step")
    axes.plot(*zip(*smooth, strict=True), color=FAINT, linewidth=1.2, label="loss")
    axes.set_ylim(bottom=0)
    lines = axes.get_lines()
    if scores:
        wer_axes = axes.twinx()
        wer_axes.set_ylabel(f"{title} (%)")
        wer_axes.spines["top"].set_visible(False)
        valid = [(row.step, 100 * row.wer) for row in scores]
        canary = [(row.step, 100 * row.canary_wer) for row in scores if row.canary_wer is not None]
        drawn = ((valid, ADAPTED, "o", f"valid {first}"), (canary, THIRD, "D", f"canary {second}"))
        for points, colour, marker, label in drawn:
            if points:
                lines += wer_axes.plot(
                    *zip(*points, strict=True), f"{marker}--", color=colour, linewidth=1.2, markersize=5, label=label
                )
        wer_axes.set_ylim(bottom=0)
    figure.legend(handles=lines, loc="outside upper left", ncols=3)
    return Chart(
        "Learning curve",
        f"Training loss by step, and {title} on valid and canary during training.",
        to_svg(figure, "learning"),
        ("step", f"valid {first} (%)", f"canary {second} (%)"),
        [(str(row.step), percent(row.wer), percent(row.canary_wer)) for row in scores],
    )


def speed(points: Sequence[tuple[str, float, float]], metric: str) -> Chart:
    """Error rate against speed.

    Args:
        points: name, seconds of audio decoded per second (RTFx), error rate.
        metric: name of the error rate.
    """
    figure, axes = new_axes(f"{metric} (%)")
    axes.set_xlabel("seconds of audio per second (RTFx)")
    for (name, rate, wer), marker, colour in zip(points, "sovD", (BASE, ADAPTED, THIRD, INK), strict=False):
        axes.plot([rate], [100 * wer], marker, color=colour, markersize=8, label=name)
    axes.set_xlim(0, 1.15 * max(rate for _, rate, _ in points))
    axes.set_ylim(0, max(1.0, 115 * max(wer for *_, wer in points)))
    figure.legend(loc="outside upper left", ncols=2)
    return Chart(
        f"{metric} against speed",
        "Points at the lower right are better. Times are of the test set, decoded in batches on the machine of the "
        "evaluation.",
        to_svg(figure, "speed"),
        ("decoder", "RTFx", f"{metric} (%)"),
        [(name, f"{rate:.1f}", percent(wer)) for name, rate, wer in points],
    )


def new_axes(label: str) -> tuple[Any, Any]:
    """An empty plot with a label of its vertical axis."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH, HEIGHT), layout="constrained")
    figure.patch.set_alpha(0)
    axes = figure.add_subplot(facecolor="none")
    axes.set_ylabel(label)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color=LINE, linewidth=0.8)
    axes.set_axisbelow(True)
    return figure, axes


def to_svg(figure: Any, name: str) -> str:
    """The figure as an <svg> element; its ids begin with `name`, which makes them unique in the page."""
    import matplotlib

    for axes in figure.axes:
        axes.tick_params(colors=INK, labelsize=9)
        axes.yaxis.label.set(color=INK, size=9)
        axes.xaxis.label.set(color=INK, size=9)
        for spine in axes.spines.values():
            spine.set_color(LINE)
    for legend in figure.legends:
        legend.set_frame_on(False)
        for text in legend.get_texts():
            text.set(color=INK, size=9)
    out = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
        figure.savefig(out, format="svg", metadata={"Date": None, "Creator": None})
    text = out.getvalue()
    text = re.sub(r'(id="|href="#|url\(#)', rf"\g<1>{name}-", text[text.index("<svg") :])
    text = re.sub(r'<svg [^>]*?viewBox="([^"]*)"[^>]*>', r'<svg viewBox="\1" aria-hidden="true">', text, count=1)
    text = re.sub(r"<(metadata|style)\b.*?</\1>", "", text, flags=re.DOTALL).replace("xlink:href", "href")
    for colour, variable in VARIABLES.items():
        text = text.replace(colour, f"var({variable})")
    return text
