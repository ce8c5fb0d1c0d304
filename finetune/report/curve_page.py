"""The result of `finetune curve` as one HTML page with a chart."""

from importlib.resources import files

import numpy as np
from markupsafe import Markup

from finetune.metrics.curve_results import CurveResult
from finetune.report.charts import ADAPTED, BASE, THIRD, Chart, new_axes, to_svg
from finetune.report.curve_text import HEAD, curve_rows, law_text
from finetune.report.page import template_environment, visible
from finetune.report.wording import sentence


def curve_chart(result: CurveResult) -> Chart:
    """WER against hours of training data, with the fitted curve."""
    figure, axes = new_axes("WER (%)")
    axes.set_xlabel("hours of training data")
    axes.set_xscale("log")
    points, more = result.points, result.extrapolations
    hours = [point.hours for point in points]
    dense = np.geomspace(hours[0], max([*hours, *(row.amount for row in more)]), 100)
    axes.plot(dense, [100 * result.law.wer(float(value)) for value in dense], "--", color=THIRD, linewidth=1.2)
    axes.axhline(100 * result.base[0], color=BASE, linewidth=1.2, label="base")
    trained = [(point.hours, point.wer, point.low, point.high) for point in points]
    expected = [(row.amount, row.wer, row.low, row.high) for row in more]
    for rows, colour, marker, label in ((trained, ADAPTED, "o", "trained"), (expected, THIRD, "D", "expected")):
        amounts, wers = [row[0] for row in rows], [100 * row[1] for row in rows]
        bars = [[100 * (row[1] - row[2]) for row in rows], [100 * (row[3] - row[1]) for row in rows]]
        axes.errorbar(
            amounts, wers, bars, fmt=marker, color=colour, capsize=3, linewidth=1.2, markersize=5, label=label
        )
    axes.set_xticks([*hours, *(row.amount for row in more)])
    axes.set_xticklabels([f"{value:.2g}" for value in (*hours, *(row.amount for row in more))])
    axes.minorticks_off()
    axes.set_ylim(bottom=0)
    figure.legend(loc="outside upper left", ncols=3)
    text = f"WER on {result.split} by hours of training data, with 95 % intervals and the fitted power law."
    return Chart("Learning curve by amount of data", text, to_svg(figure, "curve"), HEAD, curve_rows(result))


def curve_page(result: CurveResult) -> str:
    """The page."""
    environment = template_environment(True, visible)
    environment.filters.update(sentence=sentence, svg=Markup)
    style = files("finetune.report").joinpath("templates", "style.css").read_text(encoding="utf-8")
    return environment.get_template("curve.html.jinja").render(
        result=result, chart=curve_chart(result), law=law_text(result), style=Markup(style)
    )
