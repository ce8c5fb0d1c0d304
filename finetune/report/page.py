"""The report as one page of HTML, and as a few lines for a pull request.

Transcripts, ids and paths are untrusted. Every value that a template writes passes `visible`, so that control
characters and marks of direction are seen and do nothing, and is then escaped; the page's Content-Security-Policy
allows no request and no script but its own.
"""

import base64
import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from finetune.report import tables, wording
from finetune.report.charts import Chart
from finetune.report.clips import Shown
from finetune.report.facts import Advice
from finetune.report.verdict import Finding

# Control characters, surrogates, and what turns the direction of text; joiners of letters and emoji stay.
_UNSEEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\u061c\u200b\u200e\u200f\u2028\u2029\u202a-\u202e\u2060"
    "\u2066-\u206f\ufeff\ufff9-\ufffb\ud800-\udfff\U000e0000-\U000e007f]"
)
_MARKDOWN = re.compile(r"([\\`*_\[\]#|~$@])")


MOST_TERMS = 200
SECTIONS = (
    ("advice", "Next steps"),
    ("scores", "Scores"),
    ("changes", "Fixed and broken"),
    ("terms", "Terms"),
    ("keywords", "Keywords"),
    ("words", "Words"),
    ("groups", "Groups"),
    ("probes", "Made-up words"),
    ("suspicious", "Suspicious references"),
    ("training", "Training and speed"),
    ("provenance", "Provenance"),
)


@dataclass(frozen=True)
class Content:
    """All that is in a report.

    Attributes:
        name: of the run.
        unit: what the normalizer counts, word or character.
        findings: the verdict; the first is the one on the domain.
        sets: names of the sets, test first.
        metrics: as `evaluate` wrote them.
        changes: `metrics.changes.Changes` of test, as a mapping.
        lists: clips by the name of their list: fixed, broken, worst, suspicious.
        meanings: what each flag of a hypothesis says.
        absent: sections that a reader may miss, each with the reason.
        provenance: label and value.
    """

    name: str
    unit: str
    findings: Sequence[Finding]
    advice: Sequence[Advice]
    sets: Sequence[str]
    metrics: Mapping[str, Any]
    changes: Mapping[str, Any]
    lists: Mapping[str, Sequence[Shown]]
    charts: Mapping[str, Chart]
    meanings: Mapping[str, str]
    absent: Sequence[tuple[str, str]]
    provenance: Sequence[tuple[str, str]]
    command: str


def html(content: Content) -> str:
    script, style = _part("script.js"), _part("style.css")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    environment = Environment(
        loader=PackageLoader("finetune", "report/templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=visible,
    )
    environment.filters.update(_FILTERS, svg=Markup)
    return environment.get_template("report.html.jinja").render(
        **vars(content), **_tables(content), script=Markup(script), style=Markup(style), script_hash=Markup(digest)
    )


def summary(content: Content) -> str:
    """Markdown for a pull request: verdict, main table, advice."""
    environment = Environment(
        loader=PackageLoader("finetune", "report/templates"),
        autoescape=False,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_plain,
    )
    environment.filters.update(_FILTERS, code=lambda text: Markup(visible(text).replace("`", "'")))
    return environment.get_template("summary.md.jinja").render(**vars(content)).strip() + "\n"


def _tables(content: Content) -> dict[str, Any]:
    test, details = content.metrics["scores"]["test"], content.metrics["details"]["test"]
    terms = tables.terms(*(details[which].get("terms", []) for which in ("base", "adapted")))
    lists = content.metrics["keyword_lists"]
    found = {
        "terms": terms[:MOST_TERMS],
        "more_terms": len(terms[MOST_TERMS:]),
        "entities": tables.entities(*(test[which]["entities"] for which in ("base", "adapted"))),
        "confusions": tables.confusions(*(details[which]["confusions"] for which in ("base", "adapted"))),
        "pairs": list(zip(lists["base"], lists["adapted"], strict=True)) if lists else [],
        "flags": sorted({*test["base"]["flags"], *test["adapted"]["flags"]}),
        "scale": tables.scale(content.metrics["differences"]["test"]),
    }
    there = {
        "advice": content.advice,
        "terms": terms,
        "keywords": lists,
        "groups": content.metrics["groups"]["test"],
        "probes": content.metrics["probes"] or found["flags"],
        "suspicious": content.lists["suspicious"],
        "training": {*content.charts} & {"learning", "speed"},
    }
    return {**found, "sections": [(anchor, title) for anchor, title in SECTIONS if there.get(anchor, True)]}


def visible(value: Any) -> Any:
    """A character that cannot be seen, or turns its neighbours around, as its code point."""
    if isinstance(value, Markup) or not isinstance(value, str):
        return value
    return _UNSEEN.sub(lambda found: f"⟨U+{ord(found[0]):04X}⟩", value)


def _plain(value: Any) -> Any:
    """As `visible`, with what Markdown or HTML would read as a command turned into text."""
    if isinstance(value, Markup) or not isinstance(value, str):
        return value
    text = " ".join(visible(value).split())
    return _MARKDOWN.sub(r"\\\1", text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;"))


def _part(name: str) -> str:
    return files("finetune.report").joinpath("templates", name).read_text(encoding="utf-8")


_FILTERS = {
    "percent": wording.percent,
    "points": wording.points,
    "span": wording.span,
    "span_of_points": wording.span_of_points,
    "counted": wording.count,
    "p": wording.p_value,
    "sentence": wording.sentence,
    "tight": wording.tight,
}
