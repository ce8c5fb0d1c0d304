"""The report of a run with transcriptions and translations: scores by task, the verdict, texts in another language."""

from dataclasses import replace
from pathlib import Path

import pytest

from bench.synthetic_run import synthetic_run
from finetune.core.run_dir import RunDir
from finetune.data.manifest import Utterance
from finetune.report.write_report import write_report

SPANISH = "por favor ingrese su numero de agente seguido por la tecla"
ENGLISH = "please enter your agent number followed by the pound key"


def clips(name: str, text: str, target: str) -> list[Utterance]:
    task = {"task": "translate", "target_language": target} if target else {}
    return [
        Utterance(f"{name}{n}", f"/gone/{name}{n}", 3.0, f"{text} {n}", language="es", speaker=f"s{n}", **task)
        for n in range(12)
    ]


def report(folder: Path, test: list[Utterance]) -> tuple[str, str]:
    """The page and the summary of a run whose base writes Spanish, and whose adapted model does so once."""
    texts = {
        "base": {item.id: SPANISH for item in test},
        "adapted": {item.id: item.text for item in test} | {test[-1].id: f"{SPANISH} <b>"},
    }
    canary = [Utterance(f"c{n}", f"/gone/c{n}", 2.0, "some general words", language="en") for n in range(3)]
    for system in texts.values():
        system |= {item.id: item.text for item in canary}
    run = synthetic_run(
        folder / "mixed", {"train": [test[0]], "test": test, "canary": canary}, texts, {"name": "mixed"}
    )
    assert isinstance(run, RunDir)
    write_report(run)
    return run.page.read_text(encoding="utf-8"), run.digest.read_text(encoding="utf-8")


def test_a_mixed_report_has_each_task(tmp_path: Path) -> None:
    page, summary = report(tmp_path, [*clips("t", SPANISH, ""), *clips("x", ENGLISH, "en")])
    for text in (page, summary):
        assert "translate es-en" in text and "transcribe es" in text and "chrF" in text and "BLEU" in text
        assert "12 es, 1 es" in text  # languages of the base's and of the adapted model's translations
        assert "test: translate es-en |" not in text, "its WER is not shown"
    assert "<h3>Translation</h3>" not in page and 'id="scores"' in page
    assert "Translate es-en: chrF" in page.replace("\u00a0", " ")
    assert "Written in another language" in page and "en asked for, es written" in page
    assert "&lt;b&gt;" in page
    assert "- **Translation: Better" in summary
    assert "1 of 24 test hypotheses are written in another language" in page


def test_page_and_summary_name_translations_without_a_reference(tmp_path: Path) -> None:
    items = clips("x", ENGLISH, "en")
    page, summary = report(tmp_path, [*clips("t", SPANISH, ""), *items[:-1], replace(items[-1], text="")])
    for text in (page, summary):
        assert "test, translate es-en: not scored, because the reference is empty: 1." in text
    assert ".test," not in summary


def test_a_report_of_translations_has_no_wer_of_the_domain(tmp_path: Path) -> None:
    page, summary = report(tmp_path, clips("x", ENGLISH, "en"))
    assert "chrF</em>" in page and "| test |" in summary  # the row of its task
    assert "**Domain: Better on these 12 speakers; other speakers not shown.** chrF " in summary  # they are in train
    changes = page.split('id="changes"')[1].split('id="words"')[0]
    assert "largest gain of chrF" in changes and " → 100.0</span>" in changes and "errors " not in changes
    verdict = page.split('id="scores"')[0]
    assert "WER" not in verdict.split("General speech")[0].split("<main>")[1]


@pytest.mark.parametrize("language", ["es", ""])
def test_a_report_of_one_task_has_no_scores_by_task(tmp_path: Path, language: str) -> None:
    items = [replace(item, language=language) for item in clips("t", SPANISH, "")]
    page, summary = report(tmp_path, items)
    assert "Scores by task and language" not in page and "| transcribe" not in summary
