"""Renders the report as one HTML page, and as a short Markdown summary for a pull request.

Transcripts, ids and paths are untrusted. Each value in a template passes `visible`, which replaces control characters
and direction marks by their code points, and is then escaped. The Content-Security-Policy of the page allows no
requests, and only the script of the page.
"""

import base64
import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from finetune.core.wording import count, length_text
from finetune.data.style import BASE_STYLE, StyleFile
from finetune.metrics.results import SYSTEMS, EvaluationResults, KeywordListScores
from finetune.metrics.word_changes import Changes
from finetune.report import tables, wording
from finetune.report.charts import Chart
from finetune.report.clips import ClipView
from finetune.report.facts import Advice
from finetune.report.verdict import Finding

# Control characters, surrogates and direction marks; joiners of letters and emoji are kept.
_INVISIBLE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\u061c\u200b\u200e\u200f\u2028\u2029\u202a-\u202e\u2060"
    "\u2066-\u206f\ufeff\ufff9-\ufffb\ud800-\udfff\U000e0000-\U000e007f]"
)
_MARKDOWN = re.compile(r"([\\`*_\[\]#|~$@])")

MAX_TERMS = 200
SECTIONS = (
    ("advice", "Next steps"),
    ("scores", "Scores"),
    ("changes", "Word changes"),
    ("terms", "Terms"),
    ("keywords", "Keywords"),
    ("words", "Errors by kind"),
    ("groups", "Groups"),
    ("probes", "Hallucinations"),
    ("suspicious", "Suspicious references"),
    ("transcripts", "Transcripts"),
    ("training", "Training and speed"),
    ("provenance", "Provenance"),
)


@dataclass(frozen=True)
class Content:
    """The content of a report.

    Attributes:
        name: name of the run.
        unit: unit of the normalizer, word or character.
        findings: the verdict; the first finding is about the domain.
        advice: next steps.
        results: results of the evaluation.
        changes: word changes on test.
        lists: clips by name of their list (fixed, broken, worst, suspicious).
        transcripts: style of the transcripts; None for a run of an earlier version.
        charts: charts by name.
        meanings: description of each flag.
        absent: title of each missing section, with the reason.
        provenance: label and value of each row.
        command: the command that repeats the run.
        listed_terms: number of terms in the list of both models (`decode.terms`).
    """

    name: str
    unit: str
    findings: Sequence[Finding]
    advice: Sequence[Advice]
    results: EvaluationResults
    changes: Changes
    lists: Mapping[str, Sequence[ClipView]]
    transcripts: StyleFile | None
    charts: Mapping[str, Chart]
    meanings: Mapping[str, str]
    absent: Sequence[tuple[str, str]]
    provenance: Sequence[tuple[str, str]]
    command: str
    listed_terms: int


def template_environment(autoescape: bool, finalize: Callable[[Any], Any]) -> Environment:
    """The templates of the report. An unknown name in a template is an error.

    Args:
        autoescape: escape HTML.
        finalize: converts each value before it is written.
    """
    return Environment(
        loader=PackageLoader("finetune", "report/templates"),
        autoescape=autoescape,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=finalize,
    )


def html(content: Content) -> str:
    """Renders the page."""
    script, style = _template_file("script.js"), _template_file("style.css")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    environment = template_environment(True, visible)
    environment.filters.update(_FILTERS, svg=Markup)
    return environment.get_template("report.html.jinja").render(
        **vars(content), **_tables(content), script=Markup(script), style=Markup(style), script_hash=Markup(digest)
    )


def summary(content: Content) -> str:
    """Renders the Markdown summary: verdict, scores, advice."""
    environment = template_environment(False, _markdown_text)
    environment.filters.update(_FILTERS, code=lambda text: Markup(visible(text).replace("`", "'")))
    return (
        environment.get_template("summary.md.jinja")
        .render(**vars(content), systems=SYSTEMS, **_task_tables(content.results))
        .strip()
        + "\n"
    )


def _tables(content: Content) -> dict[str, Any]:
    results = content.results
    test, details = results.scores["test"], results.details["test"]
    terms = tables.terms(details.base.terms, details.adapted.terms)
    flags = sorted({*test.base.flags, *test.adapted.flags})
    has_empty = bool(test.adapted.empty_references and test.adapted.empty_references.utterances)
    optional = {
        "advice": content.advice,
        "terms": terms,
        "keywords": results.keyword_lists,
        "groups": results.groups["test"],
        "probes": results.probes or flags or has_empty or content.lists["language"],
        "suspicious": content.lists["suspicious"],
        "transcripts": content.transcripts,
        "training": {*content.charts} & {"learning", "speed"},
    }
    return {
        "systems": SYSTEMS,
        "base_style": BASE_STYLE,
        "terms": terms[:MAX_TERMS],
        "more_terms": len(terms[MAX_TERMS:]),
        "entities": tables.entities(test.base.entities, test.adapted.entities),
        "confusions": tables.confusions(details.base.confusions, details.adapted.confusions),
        "style_rows": tables.transcripts(content.transcripts) if content.transcripts else [],
        "keyword_rows": _keyword_rows(results),
        **_task_tables(results),
        "flags": flags,
        "has_empty": has_empty,
        "interval_units": tables.interval_units(results),
        "interval_notes": tables.interval_notes(results),
        "scale": tables.scale(results.differences["test"]),
        "sections": [(anchor, title) for anchor, title in SECTIONS if optional.get(anchor, True)],
    }


def _task_tables(results: EvaluationResults) -> dict[str, Any]:
    return {"task_rows": tables.tasks(results.tasks), "task_notes": tables.task_notes(results.tasks)}


def _keyword_rows(results: EvaluationResults) -> list[tuple[str, KeywordListScores]]:
    """Name and scores of both systems for each list size."""
    lists = results.keyword_lists
    pairs = zip(lists.base, lists.adapted, strict=True) if lists else ()
    return [row for pair in pairs for row in zip(SYSTEMS, pair, strict=True)]


def visible(value: Any) -> Any:
    """Replaces each invisible character and each direction mark of a string by its code point."""
    if isinstance(value, Markup) or not isinstance(value, str):
        return value
    return _INVISIBLE.sub(lambda match: f"⟨U+{ord(match[0]):04X}⟩", value)


def _markdown_text(value: Any) -> Any:
    """Like `visible`, and escapes Markdown and HTML."""
    if isinstance(value, Markup) or not isinstance(value, str):
        return value
    text = " ".join(visible(value).split())
    return _MARKDOWN.sub(r"\\\1", text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;"))


def _template_file(name: str) -> str:
    return files("finetune.report").joinpath("templates", name).read_text(encoding="utf-8")


_FILTERS = {
    "percent": wording.percent,
    "points": wording.points,
    "span": wording.span,
    "span_of_points": wording.span_of_points,
    "counted": count,
    "length_text": length_text,
    "p": wording.p_value,
    "sentence": wording.sentence,
    "tight": wording.tight,
}
