"""Plots as inline SVG: text stays text, colours follow the page's light or dark theme.

matplotlib draws them. It is imported when the first one is drawn, and never opens a window.
"""

import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

WIDTH, HEIGHT = 5.0, 3.1  # inches of 72 points; a page scales them down to a phone
# Colours that no plot has, each put for a variable of the page's style sheet.
INK, FAINT, LINE, BASE, ADAPTED, THIRD = "#010101", "#020202", "#030303", "#040404", "#050505", "#060606"
VARIABLES = {INK: "--ink", FAINT: "--faint", LINE: "--line", BASE: "--base", ADAPTED: "--adapted", THIRD: "--third"}


@dataclass(frozen=True)
class Chart:
    """A plot with its title, what it shows in a sentence, and the numbers behind it."""

    title: str
    text: str
    svg: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]


def by_duration(table: Mapping[str, Any]) -> Chart:
    """WER by bins of duration with intervals, for base and adapted; `table` is a group table as evaluate wrote it."""
    rows = [row for row in table["rows"] if row["words"]]
    figure, axes = _axes("WER, %")
    for system, colour, marker, shift in (("base", BASE, "s", -0.09), ("adapted", ADAPTED, "o", 0.09)):
        wers = [100 * row["wer"][system] for row in rows]
        reach = [
            [max(0.0, wer - 100 * row["interval"][system]["low"]) for wer, row in zip(wers, rows, strict=True)],
            [max(0.0, 100 * row["interval"][system]["high"] - wer) for wer, row in zip(wers, rows, strict=True)],
        ]
        axes.errorbar(
            [place + shift for place in range(len(rows))],
            wers,
            reach,
            fmt=f"{marker}-",
            color=colour,
            capsize=3,
            linewidth=1.2,
            markersize=5,
            label=system,
        )
    axes.set_xlim(-0.6, len(rows) - 0.4)
    names = [row["name"].replace(" and more", "+").replace("below ", "< ").replace(" to ", "–") for row in rows]
    axes.set_xticks(range(len(rows)), names)
    axes.set_ylim(bottom=0)
    figure.legend(loc="outside upper left", ncols=2)
    return Chart(
        "WER by duration",
        "Error rate of clips by their length, with 95 % intervals.",
        _svg(figure, "duration"),
        ("duration", "clips", "words", "base, %", "adapted, %"),
        [
            (
                row["name"],
                str(row["clips"]),
                str(row["words"]),
                f"{100 * row['wer']['base']:.1f}",
                f"{100 * row['wer']['adapted']:.1f}",
            )
            for row in rows
        ],
    )


def learning_curve(losses: Sequence[tuple[int, float]], scores: Sequence[Mapping[str, Any]]) -> Chart:
    """Training loss by step (smoothed), and WER on valid and canary.

    Args:
        losses: (step, loss).
        scores: rows with `step`, `wer` and `canary_wer` (None without a canary).
    """
    smooth, value = [], losses[0][1]
    keep = max(0.0, 1 - 10 / len(losses))
    for step, loss in losses:
        value = keep * value + (1 - keep) * loss
        smooth.append((step, value))
    figure, axes = _axes("loss")
    axes.set_xlabel("step")
    axes.plot(*zip(*smooth, strict=True), color=FAINT, linewidth=1.2, label="loss")
    axes.set_ylim(bottom=0)
    lines = axes.get_lines()
    if scores:
        right = axes.twinx()
        right.set_ylabel("WER, %")
        right.spines["top"].set_visible(False)
        for key, colour, marker, label in (
            ("wer", ADAPTED, "o", "valid WER"),
            ("canary_wer", THIRD, "D", "canary WER"),
        ):
            if points := [(row["step"], 100 * row[key]) for row in scores if row[key] is not None]:
                lines += right.plot(
                    *zip(*points, strict=True), f"{marker}--", color=colour, linewidth=1.2, markersize=5, label=label
                )
        right.set_ylim(bottom=0)
    figure.legend(handles=lines, loc="outside upper left", ncols=3)
    return Chart(
        "Learning curve",
        "Training loss by step, and error rates of what was scored on the way.",
        _svg(figure, "learning"),
        ("step", "valid WER, %", "canary WER, %"),
        [
            (
                str(row["step"]),
                f"{100 * row['wer']:.1f}",
                "–" if row["canary_wer"] is None else f"{100 * row['canary_wer']:.1f}",
            )
            for row in scores
        ],
    )


def speed(points: Sequence[tuple[str, float, float]]) -> Chart:
    """WER against speed.

    Args:
        points: name, seconds of audio decoded in a second (RTFx), WER.
    """
    figure, axes = _axes("WER, %")
    axes.set_xlabel("seconds of audio in a second (RTFx)")
    for (name, rate, wer), marker, colour in zip(points, "sovD", (BASE, ADAPTED, THIRD, INK), strict=False):
        axes.plot([rate], [100 * wer], marker, color=colour, markersize=8, label=name)
    axes.set_xlim(0, 1.15 * max(rate for _, rate, _ in points))
    axes.set_ylim(0, max(1.0, 115 * max(wer for *_, wer in points)))
    figure.legend(loc="outside upper left", ncols=2)
    return Chart(
        "WER against speed",
        "Right and low is better. Times of this machine, of test decoded in batches.",
        _svg(figure, "speed"),
        ("decoder", "RTFx", "WER, %"),
        [(name, f"{rate:.1f}", f"{100 * wer:.1f}") for name, rate, wer in points],
    )


def _axes(label: str) -> tuple[Any, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH, HEIGHT), layout="constrained")
    figure.patch.set_alpha(0)
    axes = figure.add_subplot(facecolor="none")
    axes.set_ylabel(label)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color=LINE, linewidth=0.8)
    axes.set_axisbelow(True)
    return figure, axes


def _svg(figure: Any, name: str) -> str:
    """The figure as an <svg> element; its ids begin with `name`, so that several stand in one page."""
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
