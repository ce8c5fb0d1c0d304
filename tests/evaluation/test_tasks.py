"""Scores by task and language: sets without mixed tasks, BLEU and chrF with intervals, texts in another language."""

import json
import re
import wave
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from finetune.core.config import EvaluateSection, ModelSection, Recipe
from finetune.core.data_config import DataSection
from finetune.core.files import read_jsonl
from finetune.core.options import DecodingOptions
from finetune.core.run_dir import RunDir
from finetune.data.manifest import Utterance, write_manifest
from finetune.evaluation.decode_run import Backend
from finetune.evaluation.evaluate import evaluate
from finetune.evaluation.score import ScoreResult, score, score_table
from finetune.evaluation.scoring_sets import scoring_sets
from finetune.evaluation.task_results import task_line
from finetune.evaluation.utterances import clip_of
from finetune.inference.recognize import Hypothesis
from finetune.metrics.chrf import chrf_counts, chrf_error
from finetune.metrics.results import EvaluationResults
from finetune.metrics.scorecard import Clip, ScoringOptions, SystemOutput
from finetune.metrics.task_scores import task_scores
from finetune.metrics.wer import score as word_errors
from finetune.report.advice import advise
from finetune.report.facts import Facts, Overlap
from finetune.report.tables import task_notes, tasks
from finetune.report.verdict import BAD, GOOD, domain, forgetting, translation

SPANISH = "por favor ingrese su numero de agente seguido por la tecla"
ENGLISH = "please enter your agent number followed by the pound key"
OPTIONS = ScoringOptions("basic@2", 300, 0, (), frozenset(), {})


def clip(ident: str, text: str, language: str = "", target: str = "", corpus: str = "a") -> Utterance:
    task = {"task": "translate", "target_language": target} if target else {}
    return Utterance(
        ident, f"/{ident}.wav", 4.0, text, language=language, speaker=ident, extra={"corpus": corpus}, **task
    )


def spanish(count: int) -> list[Utterance]:
    return [clip(f"es{number}", f"{SPANISH} {number}", "es") for number in range(count)]


def translations(count: int) -> list[Utterance]:
    return [clip(f"to{number}", f"{ENGLISH} {number}", "es", "en") for number in range(count)]


class Scripted:
    """Both systems write a text for each clip; the rest is as in the toolkit."""

    def __init__(self, base: Any, adapted: Any, draft: Any = lambda item: item.text) -> None:
        self.write, self.draft = {"base": base, "adapted": adapted}, draft

    def recognize(
        self, system: Any, items: list[Utterance], instruction: str, options: DecodingOptions
    ) -> list[Hypothesis]:
        return [Hypothesis(item.id, self.write[system](item), (1,), -1.0, 0.1, 1) for item in items]

    def ctc_texts(self, system: Any, items: list[Utterance]) -> list[str]:
        return [self.draft(item) for item in items]

    def evaluate(self, run: RunDir) -> EvaluationResults:
        data = DataSection(train=["-"], valid=["-"], test=["-"])
        recipe = Recipe(name="x", model=ModelSection(base="-"), data=data, evaluate=EvaluateSection(probes=False))
        backend = Backend(
            lambda _, __, system: system, self.recognize, lambda _, items: [self.draft(item) for item in items]
        )
        return evaluate(recipe, run, backend, lambda _: np.zeros(1600, np.float32)).read()


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    run = RunDir(tmp_path / "run")
    write_manifest(run.manifest("train"), [clip("t", "x y")])
    return run


def test_a_mixed_test_set_has_the_wer_of_its_transcriptions_alone(run: RunDir) -> None:
    write_manifest(run.manifest("test"), [*spanish(12), *translations(12)])
    wrong = Scripted(lambda item: SPANISH, lambda item: item.text)
    result = wrong.evaluate(run)
    assert list(result.scores) == ["test", "test: translate es-en"]
    assert result.scores["test"].adapted.wer == 0 and result.scores["test"].adapted.chrf is None
    assert result.scores["test"].base.reference_words == 12 * 12
    translated = result.scores["test: translate es-en"]
    texts = [f"{ENGLISH} {number}" for number in range(12)]
    assert translated.base.chrf == pytest.approx(1 - chrf_error([chrf_counts(text, SPANISH) for text in texts]))
    assert translated.base.flags["language"] == 12 and "language" not in translated.adapted.flags
    difference = result.differences["test: translate es-en"]
    assert difference.metric == "1 - chrF" and difference.p_value <= 0.05
    assert difference.low <= difference.difference <= difference.high < 0
    assert difference.difference == pytest.approx(translated.base.chrf - translated.adapted.chrf)
    assert difference.p_holm is None  # test sets do not ask whether general speech is worse

    by_name = {row.base.name: row for row in result.tasks["test"]}
    assert list(by_name) == ["transcribe es", "translate es-en"]
    row = by_name["translate es-en"]
    assert list(row.differences) == ["BLEU", "chrF"] and row.base.normalizer == ""
    assert row.base.wrong_language == {"es": 12} and row.adapted.wrong_language == {}
    assert row.adapted.scores["BLEU"].value == pytest.approx(1.0) and "tok:13a" in row.adapted.signatures["BLEU"]
    assert row.base.scores["chrF"].value == pytest.approx(translated.base.chrf)
    chrf = row.base.scores["chrF"]
    assert chrf.interval.low <= chrf.value <= chrf.interval.high and chrf.interval.blocks == 12
    assert row.differences["chrF"].low > 0 and row.differences["chrF"].p_value <= 0.05
    assert list(by_name["transcribe es"].differences) == ["WER", "CER"]

    written = {row["id"]: row for row in read_jsonl(run.utterances)}
    assert len(written) == 24  # also the translations
    assert written["to3"]["target_language"] == "en" and written["to3"]["written_language_base"] == "es"
    assert "written_language" not in written["to3"] and "target_language" not in written["es3"]


def test_the_decoders_and_suspicious_references_are_those_of_transcriptions(run: RunDir) -> None:
    write_manifest(run.manifest("test"), [*spanish(2), *translations(2)])
    result = Scripted(lambda item: item.text, lambda item: item.text if item.id < "t" else "x").evaluate(run)
    assert result.decoders.greedy_wer == 0
    same = Scripted(*[lambda item: "la misma frase"] * 3)  # also by the CTC head
    assert same.evaluate(run).suspicious == 2
    write_manifest(run.manifest("test"), translations(2))
    assert same.evaluate(run).suspicious == 0


def test_one_language_without_translations_has_no_scores_by_task(run: RunDir) -> None:
    write_manifest(run.manifest("test"), spanish(3))
    result = Scripted(lambda item: item.text, lambda item: item.text).evaluate(run)
    assert result.tasks == {} and list(result.scores) == ["test"]
    assert "chrf" in json.loads(run.scores.read_text())["scores"]["test"]["base"]


def test_each_language_has_its_wer_or_cer(run: RunDir) -> None:
    texts = {"en": "one two", "es": "uno dos", "ja": "今日は晴れ", "zh": "今天"}
    write_manifest(run.manifest("test"), [clip(language, text, language) for language, text in texts.items()])
    result = Scripted(lambda item: "", lambda item: item.text).evaluate(run)
    found = {row.adapted.name: row.adapted for row in result.tasks["test"]}
    assert list(found) == ["transcribe en", "transcribe es", "transcribe ja", "transcribe zh"]
    assert list(found["transcribe ja"].scores) == list(found["transcribe zh"].scores) == ["CER"]
    assert found["transcribe ja"].normalizer == "ja-cer@2" and found["transcribe es"].normalizer == "basic@2"
    assert all(row.base.empty_hypotheses == 1 for row in result.tasks["test"])


def test_the_interval_of_a_cer_of_nearly_equal_clips_ends_at_100_per_cent() -> None:
    clips = [Clip(f"u{n}", f"{SPANISH} {n}", 2.0, f"s{n}", "a.wav", "", language="es") for n in range(12)]
    scores = task_scores(clips, [SystemOutput(SPANISH, 0.1, False)] * 12, OPTIONS).scores
    assert 0 < scores["CER"].interval.low <= scores["CER"].value <= scores["CER"].interval.high <= 1


def test_no_set_mixes_tasks() -> None:
    rows = [
        clip("a", "one", "en"),
        clip("b", "zwei", "en", "de"),
        clip("c", "zwei", "en", "German", corpus="b"),
        clip("d", "un", "en", "fr", corpus="b"),
        clip("e", "ichi", "ja", corpus="c"),
    ]
    sets = {name: indices for name, (_, indices) in scoring_sets({"test": rows, "canary": rows}).items()}
    assert sets == {
        "test": [0],
        "test: translate en-de": [1, 2],
        "test: translate en-fr": [3],
        "test: Japanese": [4],
        "canary": [0],
        "canary: a": [0],
        "canary: b": [2, 3],
        "canary: c": [4],
        "canary: translate en-de": [1, 2],
        "canary: translate en-fr": [3],
    }
    japanese = {name: indices for name, (_, indices) in scoring_sets({"test": [rows[4], rows[1]]}).items()}
    assert japanese == {"test": [0], "test: translate en-de": [1]}
    only = {name: indices for name, (_, indices) in scoring_sets({"test": rows[1:3]}).items()}
    assert only == {"test": [0, 1]}
    two = {name: indices for name, (_, indices) in scoring_sets({"test": rows[1:4]}).items()}
    assert two == {"test": [0, 1, 2], "test: translate en-de": [0, 1], "test: translate en-fr": [2]}


def test_an_empty_reference_translation_is_not_scored_and_counted() -> None:
    clips = [
        Clip(f"u{number}", text, 2.0, f"s{number}", "a.wav", "", target_language="en", language="es")
        for number, text in enumerate(["the first one", "  ", "another one"])
    ]
    outputs = [SystemOutput(text, 0.1, False) for text in ("the first one", "words", "")]
    scores = task_scores(clips, outputs, OPTIONS)
    assert (scores.clips, scores.empty_references, scores.empty_hypotheses) == (2, 1, 1)
    assert "clips 2: BLEU" in task_line(scores) and "reference is empty: 1" in task_line(scores)
    nothing = task_scores(clips[1:2], outputs[1:2], OPTIONS)
    assert (nothing.clips, nothing.scores) == (0, {}) and task_line(nothing).endswith("empty: 1")


def facts(result: EvaluationResults) -> Facts:
    data = DataSection(train=["-"], valid=["-"], test=["-"])
    recipe = Recipe(name="x", model=ModelSection(base="-"), data=data)
    return Facts(result, recipe, [], Overlap(0, 0, 0, 0), 0)


def test_the_verdict_of_translations_follows_chrf(run: RunDir) -> None:
    write_manifest(run.manifest("test"), translations(12))
    good, bad = (lambda item: item.text), (lambda item: SPANISH)
    result = Scripted(bad, good).evaluate(run)
    assert list(result.scores) == ["test"]
    assert result.groups == {"test": []}  # a group has a WER
    finding = domain(result)
    assert finding.state == GOOD and "chrF" in finding.detail and "WER" not in finding.detail
    assert translation(result) is None  # it is the domain
    worse = Scripted(good, bad).evaluate(run)
    assert domain(worse).state == BAD and "12 hypotheses in another language (base 0)" in domain(worse).caveat
    assert "other language" in {item.rule for item in advise(facts(worse))}
    silent = facts(Scripted(good, lambda item: "").evaluate(run))
    assert silent.errors == silent.test.deletions > 100
    assert "deletions" not in {item.rule for item in advise(silent)}

    write_manifest(run.manifest("test"), [*spanish(12), *translations(12)])
    mixed = Scripted(bad, good).evaluate(run)
    found = translation(mixed)
    assert found is not None and found.state == GOOD and found.detail.startswith("Translate es-en: chrF ")
    assert domain(mixed).detail.startswith("WER ")
    lost = translation(Scripted(good, lambda item: item.text if item.id < "t" else SPANISH).evaluate(run))
    assert lost is not None and lost.state == BAD and lost.headline == "Worse"
    rows = tasks(mixed.tasks)
    assert [(row.task, row.metric) for row in rows] == [
        ("transcribe es", "WER"),
        ("transcribe es", "CER"),
        ("translate es-en", "BLEU"),
        ("translate es-en", "chrF"),
    ]
    assert (rows[-1].wrong_base, rows[-1].wrong_adapted) == ("12 es", "0")
    notes = task_notes(mixed.tasks)
    assert len(notes) == 2 and notes[0].startswith("test, transcribe es: word errors are equal in all 12 clips")


def test_lost_translations_of_the_canary_are_forgetting(run: RunDir) -> None:
    write_manifest(run.manifest("test"), [replace(item, id=f"test-{item.id}") for item in spanish(3)])
    corpora = [replace(item, extra={"corpus": item.id[-1]}) for item in [*spanish(12), *translations(12)]]
    write_manifest(run.manifest("canary"), corpora)
    result = Scripted(lambda item: item.text, lambda item: item.text if item.id[:2] != "to" else "no").evaluate(run)
    finding = forgetting(result, None)
    assert finding.state == BAD and finding.detail.startswith("Canary: translate es-en: chrF 100.0 → ")
    ids = [row["id"] for row in read_jsonl(run.utterances)]
    assert len(ids) == len(set(ids)) == 27
    difference = result.differences["canary: translate es-en"]
    assert difference.p_holm is not None and 2 * difference.p_value <= difference.p_holm <= 0.05


def test_score_has_no_wer_of_translations(tmp_path: Path) -> None:
    mixed, only = tmp_path / "mixed.jsonl", tmp_path / "only.jsonl"
    audio = tmp_path / "a.wav"
    with wave.open(str(audio), "wb") as out:
        out.setparams((1, 2, 16000, 0, "NONE", ""))
        out.writeframes(bytes(2 * 16000))

    def rows(items: list[Utterance]) -> list[Utterance]:
        return [replace(item, audio_filepath=str(audio), duration=1.0) for item in items]

    write_manifest(mixed, rows([*spanish(3), *translations(3)]))
    write_manifest(only, rows(translations(3)))
    data = DataSection(train=["-"], valid=["-"], test=[str(mixed), str(only)])
    recipe = Recipe(name="x", model=ModelSection(base="-"), data=data)

    def decode(items: Any) -> list[Hypothesis]:
        return [Hypothesis(item.id, item.text.replace("agente", "x"), (1,), -1.0, 0.1) for item in items]

    result = score(recipe, RunDir(tmp_path / "run"), decode)
    texts = [item.text for item in spanish(3)]
    wer = word_errors(texts, [text.replace("agente", "x") for text in texts], "basic@2").wer
    assert result.sets["mixed"].wer == wer and result.sets["mixed"].utterances == 3
    assert result.macro_wer == pytest.approx(round(100 * wer, 2) / 100)  # the mean of one set
    assert [task.name for task in result.sets["mixed"].tasks] == ["transcribe es", "translate es-en"]
    assert result.sets["only"].chrf == pytest.approx(1.0)
    table = "\n".join(score_table(result))
    assert "mean WER of 1 set" in table and "translations, see below" in table
    assert "only: translate es-en, clips 3: BLEU 100.0" in table


def test_score_has_a_mean_of_words_and_a_mean_of_characters(tmp_path: Path) -> None:
    audio = tmp_path / "a.wav"
    with wave.open(str(audio), "wb") as out:
        out.setparams((1, 2, 16000, 0, "NONE", ""))
        out.writeframes(bytes(2 * 16000))
    texts = {"en": ("one two three four", "en"), "de": ("eins zwei", "de"), "ja": ("今日は晴れ", "ja")}
    for name, (text, language) in texts.items():
        write_manifest(tmp_path / f"{name}.jsonl", [Utterance(name, str(audio), 1.0, text, language=language)])
    spoken = {"en": "one two three", "de": "eins zwei", "ja": "昨日は晴"}

    def scored(*names: str) -> ScoreResult:
        data = DataSection(train=["-"], valid=["-"], test=[str(tmp_path / f"{name}.jsonl") for name in names])
        recipe = Recipe(name="x", model=ModelSection(base="-"), data=data)
        return score(
            recipe,
            RunDir(tmp_path / "-".join(names)),
            lambda items: [Hypothesis(item.id, spoken[item.id], (1,), -1.0, 0.1) for item in items],
        )

    result = scored("en", "de", "ja")
    assert (result.macro_wer, result.macro_cer) == (pytest.approx(0.125), pytest.approx(0.4))
    table = "\n".join(score_table(result))
    assert re.search(r"ja, CER .* 40\.00 .*\nmean WER of 2 sets +12\.50 .*\nmean CER of 1 set +40\.00", table)
    assert "WER or CER % (95 % CI)" in table and re.search(r"en +1 +0 +4 words", table)
    assert re.search(r"ja, CER +1 +0 +5 characters", table)
    assert scored("ja").macro_wer is None


def test_values_that_look_the_same_are_one_group() -> None:
    values: list[object] = ["Zo\u00e9 ", "Zoe\u0301", 1, 1.0, None, "  ", "a  b", True]
    clips = [clip_of(Utterance("u", "a", 1.0, "x", extra={"site": value}), "", False) for value in values]
    names = [clip.columns["site"] for clip in clips]
    assert names == ["Zo\u00e9", "Zo\u00e9", "1", "1", "", "", "a b", "True"]


@pytest.mark.parametrize(("channel", "name"), [(0, "0"), (1, "1"), (None, "")])
def test_the_channel_of_a_clip_is_a_column_for_groups(channel: int | None, name: str) -> None:
    assert clip_of(Utterance("u", "a", 1.0, "x", channel=channel), "", False).columns.get("channel", "") == name
