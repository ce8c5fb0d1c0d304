"""The result of `finetune curve` as a table in plain text."""

from collections.abc import Sequence

from finetune.metrics.curve_results import CurvePoint, CurveResult
from finetune.report.wording import percent

HEAD = ("training data", "hours", "clips", "speakers", "epochs", "WER (%)", "95 %")


def curve_rows(result: CurveResult) -> list[tuple[str, ...]]:
    """The cells of the base, of each part and of each extrapolation."""
    base, low, high = result.base
    rows: list[tuple[str, ...]] = [
        ("none (base)", "0", "0", "", "", percent(base), f"{percent(low)} to {percent(high)}")
    ]
    rows += [_point_row(point) for point in result.points]
    largest = result.points[-1]
    for more in result.extrapolations:
        factor = more.amount / (largest.hours * 100 / largest.share)
        name, cells = f"{factor:.2g} x, expected", (percent(more.wer), f"{percent(more.low)} to {percent(more.high)}")
        rows.append((name, f"{more.amount:.3g}", "", "", "", *cells))
    return rows


def _point_row(point: CurvePoint) -> tuple[str, ...]:
    wer = percent(point.wer)
    if len(point.runs) > 1:
        wer += f" ({percent(min(point.runs))} to {percent(max(point.runs))})"
    counts = (f"{point.hours:.3g}", f"{point.clips:.0f}", f"{point.speakers:.0f}", str(point.epochs))
    return (f"{point.share:g} %", *counts, wer, f"{percent(point.low)} to {percent(point.high)}")


def law_text(result: CurveResult) -> str:
    """The fitted power law as a formula, in per cent."""
    law = result.law
    return (
        f"WER = {percent(law.c)} + {percent(law.a)} x (hours / {law.unit:.3g})^-{law.b:.2f}, in per cent; fitted to "
        f"{len(result.points)} parts"
    )


def curve_text(result: CurveResult) -> list[str]:
    """The table, the power law and the notes as lines."""
    rows: Sequence[Sequence[str]] = [HEAD, *curve_rows(result)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEAD))]
    lines = [
        "  ".join(cell.ljust(width) if not column else cell.rjust(width) for column, (cell, width) in pairs).rstrip()
        for pairs in (enumerate(zip(row, widths, strict=True)) for row in rows)
    ]
    return [*lines, "", law_text(result), *(f"note: {note}" for note in result.notes)]
