"""The evaluation of a run, with models whose hypotheses are given."""

import json
import logging
import re
import weakref
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from finetune.core.config import EvaluateSection, ModelSection, Recipe
from finetune.core.data_config import DataSection
from finetune.core.errors import CheckpointError
from finetune.core.files import read_json, write_json
from finetune.core.options import DecodingOptions
from finetune.core.run_dir import RunDir
from finetune.data.manifest import Utterance, read_manifest, write_manifest
from finetune.evaluation.decode_run import Backend, compare_decoders, comparison_seconds
from finetune.evaluation.evaluate import evaluate
from finetune.inference.recognize import Hypothesis
from finetune.metrics.alignment import Confusion
from finetune.metrics.results import RESULTS_SCHEMA, EvaluationResults, read_results
from finetune.metrics.scores import PromptedKeywords

REFERENCES = ["take metoprolol now", "give apixaban twice", "nothing new today"]
HYPOTHESES = {
    "base": ["take met now", "give a pixie ban twice", "nothing new today"],
    "adapted": ["take metoprolol now", "give apixaban twice", "nothing new to day"],
}
Prompt = tuple[str, str, tuple[str, ...]]  # utterance id, instruction, keywords


@dataclass
class FixedModel:
    """Replaces one system, and records the prompts of its utterances."""

    system: str
    prompts: list[Prompt] = field(default_factory=list)


@dataclass
class FixedBackend:
    """Returns given hypotheses; other references are recognized without error, and probes give "um"."""

    hypotheses: dict[str, list[str]] = field(default_factory=lambda: dict(HYPOTHESES))
    draft: Callable[[str], str] = lambda text: text.replace("now", "never")
    models: list[FixedModel] = field(default_factory=list)
    room: int = 1000  # keywords that fit

    def load(self, recipe: Recipe, run: RunDir, system: str) -> Any:
        self.models.append(FixedModel(system))
        return self.models[-1]

    def recognize(
        self, model: Any, utterances: list[Utterance], instruction: str, options: DecodingOptions
    ) -> list[Hypothesis]:
        model.prompts += [(item.id, instruction, item.keywords) for item in utterances]
        texts = dict(zip(REFERENCES, self.hypotheses[model.system], strict=True)) | {"": "um"}
        return [
            Hypothesis(
                item.id,
                texts.get(item.text, item.text),
                (1, 2, 3),
                -1.0,
                0.5,
                4 if options.decoder == "greedy" else 1,
                3,
                2,
                False,
            )
            for item in utterances
        ]

    def ctc_texts(self, model: Any, items: list[Utterance]) -> list[str]:
        return [self.draft(item.text) for item in items]

    def fit_keywords(self, item: Utterance, words: list[str]) -> list[str]:
        return words[: self.room]

    def evaluate(self, recipe: Recipe, run: RunDir) -> EvaluationResults:
        return evaluate(
            recipe, run, Backend(self.load, self.recognize, self.ctc_texts, self.fit_keywords), noise
        ).read()


def noise(item: Utterance) -> NDArray[np.float32]:
    return np.random.default_rng(0).normal(0, 0.1, 32_000).astype(np.float32)


@pytest.fixture
def backend() -> FixedBackend:
    return FixedBackend()


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    run = RunDir(tmp_path / "run")
    rows = [Utterance(f"u{number}", f"/{number}.wav", 2.0, text) for number, text in enumerate(REFERENCES)]
    write_manifest(run.manifest("test"), rows)
    write_manifest(run.manifest("train"), [Utterance("t", "/t.wav", 1.0, "metoprolol again")])
    return run


def recipe(**sections: Any) -> Recipe:
    data = DataSection(train=["-"], valid=["-"], test=["-"])
    return Recipe(name="x", **{"model": ModelSection(base="-"), "data": data, **sections})


@pytest.mark.parametrize(
    ("keywords", "lists", "record", "warned"),
    [
        ((), [], {}, False),
        (("stent",), [], {}, True),
        ((), [5], {}, True),
        (("stent",), [5], {"keyword_prompts": True}, False),
    ],
)
def test_keywords_for_a_model_that_was_not_trained_with_them_are_a_warning(
    run: RunDir,
    backend: FixedBackend,
    nano: Path,
    caplog: pytest.LogCaptureFixture,
    keywords: tuple[str, ...],
    lists: list[int],
    record: dict[str, object],
    warned: bool,
) -> None:
    rows = read_manifest(run.manifest("test"))
    write_manifest(run.manifest("test"), [replace(rows[0], keywords=keywords), *rows[1:]])
    run.finish("train", {"typical_duration": 1.0, **record})
    section = EvaluateSection(keyword_lists=lists)
    with caplog.at_level(logging.WARNING):
        backend.evaluate(recipe(model=ModelSection(base=str(nano)), evaluate=section), run)
    assert caplog.text.count("not trained with keyword prompts") == int(warned)
    assert "longer than" not in caplog.text, "the clips have 2 s, the limit of the model is 3 s"


def test_the_score_of_other_engines_is_that_of_clips_in_one_piece(run: RunDir, backend: FixedBackend) -> None:
    """The clips have 2 s; those of other engines are not cut."""
    recognize, windows = backend.recognize, list[float]()

    def worse(model: Any, items: list[Utterance], instruction: str, options: DecodingOptions) -> list[Hypothesis]:
        windows.append(options.max_window)
        rows = recognize(model, items, instruction, options)
        return [replace(row, text="") for row in rows] if options.max_window > 2 else rows

    functions = Backend(backend.load, worse, backend.ctc_texts, backend.fit_keywords)
    results = evaluate(recipe(decode=DecodingOptions(max_window=1.5)), run, functions, noise).read()
    assert results.decoders.engine_wer == 1.0 and results.scores["test"].adapted.wer < 1
    assert windows.count(30.0) == 1, "only greedy decoding of the adapted model once more"


def test_the_score_without_the_terms_of_decoding_is_that_of_the_text_before(run: RunDir, backend: FixedBackend) -> None:
    plain = {"adapted": ["take metal now", "give apixaban twice", "nothing new to day"]}
    recognize = backend.recognize

    def told(model: Any, items: list[Utterance], instruction: str, options: DecodingOptions) -> list[Hypothesis]:
        before = dict(zip(REFERENCES, plain.get(model.system, HYPOTHESES["base"]), strict=True))
        rows = recognize(model, items, instruction, options)
        return [replace(row, without_keywords=before.get(item.text)) for item, row in zip(items, rows, strict=True)]

    without = backend.evaluate(recipe(), run)
    assert without.without_terms == {}
    functions = Backend(backend.load, told, backend.ctc_texts, backend.fit_keywords)
    results = evaluate(recipe(decode=DecodingOptions(terms=("metoprolol",))), run, functions, noise).read()
    scores, before = results.scores["test"], results.without_terms["test"]
    assert (before.base, before.adapted) == (scores.base.wer, pytest.approx(scores.adapted.wer + 1 / 9))
    assert results.decoders.engine_wer == before.adapted and without.decoders.engine_wer == scores.adapted.wer
    rows = read_manifest(run.manifest("test"))
    write_manifest(run.manifest("test"), [replace(rows[0], keywords=("stent",)), *rows[1:]])
    both = recipe(decode=DecodingOptions(keyword_method="ctc", terms=("metoprolol",)))
    assert evaluate(both, run, functions, noise).read().without_terms == {}, "the keywords of a row were written too"


def test_clips_longer_than_the_speech_of_the_training_are_counted(
    run: RunDir, backend: FixedBackend, nano: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rows = read_manifest(run.manifest("test"))
    write_manifest(run.manifest("test"), [replace(rows[0], duration=3.5), replace(rows[1], duration=5.0), *rows[2:]])
    for longest, text in ((1.0, f"2 of {len(rows)} clips are longer than 3 s"), (4.0, "1 of"), (5.0, "")):
        run.finish("train", {"typical_duration": longest})
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            backend.evaluate(recipe(model=ModelSection(base=str(nano))), run)
        assert text in caplog.text and ("longer than" in caplog.text) == bool(text)


@pytest.mark.parametrize(
    ("decoder", "max_window", "seconds"), [("greedy", 30, 46), ("beam", 30, 92), ("relaxed", 5, 132), ("greedy", 5, 86)]
)
def test_the_comparison_of_decoders_counts_each_decoding(decoder: str, max_window: float, seconds: float) -> None:
    clips = [Utterance(f"u{number}", "a.wav", length, "a") for number, length in enumerate((2.0, 4.0, 40.0))]
    data = DataSection(train=["-"], valid=["-"], test=["-"])
    decode = DecodingOptions(decoder=decoder, max_window=max_window)  # type: ignore[arg-type]
    setup, decoded = Recipe(name="x", model=ModelSection(base="-"), data=data, decode=decode), list[float]()

    def recognize(_: Any, items: list[Utterance], __: str, ___: DecodingOptions) -> list[Hypothesis]:
        decoded.extend(item.duration for item in items)
        return [Hypothesis(item.id, item.text, (1,), -1.0) for item in items]

    texts = recognize(None, clips, "", decode)
    decoded.clear()
    compare_decoders(None, clips, texts, setup, Backend(recognize=recognize))  # type: ignore[arg-type]
    assert sum(decoded) == seconds == comparison_seconds(clips, setup)


def test_scores_terms_and_decoders(run: RunDir, backend: FixedBackend, tmp_path: Path) -> None:
    (tmp_path / "terms.txt").write_text("metoprolol\napixaban\n")
    data = DataSection(train=["-"], valid=["-"], test=["-"], terms=str(tmp_path / "terms.txt"))
    result = backend.evaluate(recipe(data=data), run)
    base, adapted = result.scores["test"].base, result.scores["test"].adapted
    assert (base.wer, base.substitutions, base.insertions) == (pytest.approx(4 / 9), 2, 2)
    assert adapted.wer == pytest.approx(2 / 9)
    assert base.interval.low <= base.wer <= base.interval.high
    assert "only 3 clips" in base.interval.note
    assert base.terms and adapted.terms
    assert base.terms.seen.recall == 0 and adapted.terms.seen.recall == 1
    unseen = adapted.terms.unseen
    assert (unseen.recall, unseen.precision, unseen.support) == (1.0, 1.0, 1)
    assert result.differences["test"].difference == pytest.approx(-2 / 9)
    assert result.differences["test"].mapsswe.segments == 3
    assert result.decoders.tokens_equal is True
    assert result.decoders.acceptance == pytest.approx(2 / 3, abs=1e-3)
    assert (result.decoders.greedy_passes, result.decoders.speculative_passes) == (4, 1)
    assert result.decoding["test"].adapted.acceptance == pytest.approx(2 / 3)
    assert list(result.scores) == ["test"]


def test_the_results_file(run: RunDir, backend: FixedBackend) -> None:
    result = backend.evaluate(recipe(), run)
    content = read_json(run.scores)
    assert content["schema_version"] == RESULTS_SCHEMA and content == result.model_dump(mode="json")
    assert result.settings.normalizer == "basic@2"
    assert result.provenance.dtype == "float32" and result.provenance.libraries["torch"]
    wers = {result.decoders.greedy_wer, result.decoders.speculative_wer}
    assert wers == {result.scores["test"].adapted.wer} == {content["scores"]["test"]["adapted"]["wer"]}
    assert result.probes
    for _, probes in result.probes.items():
        assert probes.with_output == probes.clips == 8 and probes.outputs[0].text == "um"
    assert Confusion("today", "day", 1) in result.details["test"].adapted.confusions
    assert [table.column for table in result.groups["test"]] == ["duration", "bandwidth", "snr"]
    assert result.keyword_lists is None and result.suspicious == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema_version": 2}, "has schema 2, but this version of finetune reads schema 5. Run `finetune evaluate"),
        ({"extra": 1}, "extra: Extra inputs are not permitted. Run `finetune evaluate"),
        ({"suspicious": "many"}, "suspicious: Input should be a valid integer"),
    ],
)
def test_unreadable_results_are_refused(
    run: RunDir, backend: FixedBackend, change: dict[str, Any], message: str
) -> None:
    backend.evaluate(recipe(), run)
    content = read_json(run.scores)
    write_json(run.scores, {**content, **change})
    with pytest.raises(CheckpointError, match=re.escape(message)):
        read_results(run.scores)
    content["scores"]["test"]["base"]["interval"]["middle"] = 0.5
    write_json(run.scores, content)
    with pytest.raises(CheckpointError, match=r"scores\.test\.base\.interval\.middle"):
        read_results(run.scores)
    run.scores.write_text("{")
    with pytest.raises(CheckpointError, match="cannot be read"):
        read_results(run.scores)


def test_every_hypothesis_is_kept(run: RunDir, backend: FixedBackend) -> None:
    backend.evaluate(recipe(evaluate=EvaluateSection(probes=False)), run)
    for system, texts in HYPOTHESES.items():
        lines = run.hypotheses("test", system).read_text(encoding="utf-8").splitlines()
        rows = [json.loads(line) for line in lines]
        assert [(row["text"], row["pred_text"]) for row in rows] == list(zip(REFERENCES, texts, strict=True))
        trn = run.transcripts("test", system, "trn").read_text(encoding="utf-8").splitlines()
        assert [line.rsplit(" ", 1)[0] for line in trn] == texts
    both = [json.loads(line) for line in run.utterances.read_text(encoding="utf-8").splitlines()]
    assert [(row["pred_text"], row["pred_text_base"]) for row in both] == list(
        zip(*reversed(HYPOTHESES.values()), strict=True)
    )
    assert [(row["words"], row["errors"], row["errors_base"]) for row in both] == [(3, 0, 1), (3, 0, 3), (3, 2, 0)]
    assert not run.probes.exists()


def test_corpora_and_translations_of_a_canary_are_scored_separately(run: RunDir, backend: FixedBackend) -> None:
    rows = [
        Utterance("c0", "/a.wav", 2.0, "some words here", extra={"corpus": "a.jsonl"}),
        Utterance("c1", "/b.wav", 2.0, "Das ist ein Haus", extra={"corpus": "b.jsonl"}, target_language="de"),
    ]
    write_manifest(run.manifest("canary"), rows)
    result = backend.evaluate(recipe(), run)
    assert list(result.scores) == ["test", "canary", "canary: a.jsonl", "canary: b.jsonl"]
    assert result.scores["canary"].base.reference_words == 3  # words of a translation are not counted
    assert result.scores["canary"].base.translation == {}
    assert result.scores["canary: b.jsonl"].adapted.translation["de"].bleu == pytest.approx(100)
    assert [item.p_holm for item in result.differences.values()] == [None, 1.0, 1.0, 1.0]


def test_japanese_is_scored_in_characters_and_separately(run: RunDir, backend: FixedBackend) -> None:
    rows = [
        Utterance("c0", "/a.wav", 2.0, "some words here", language="en"),
        Utterance("c1", "/b.wav", 2.0, "今日は、晴れ。", language="ja"),
        Utterance("c2", "/c.wav", 2.0, "明日は雨", language="ja-JP"),
    ]
    write_manifest(run.manifest("canary"), rows)
    result = backend.evaluate(recipe(), run)
    assert list(result.scores) == ["test", "canary", "canary: Japanese"]
    assert result.scores["canary"].base.reference_words == 3
    japanese = result.scores["canary: Japanese"].adapted
    assert (japanese.normalizer, japanese.reference_words, japanese.cer) == ("ja-cer@2", 9, 0.0)
    write_manifest(run.manifest("canary"), rows[1:])
    assert backend.evaluate(recipe(), run).scores["canary"].base.normalizer == "ja-cer@2"


def test_prompted_keywords_of_the_reference_are_a_warning(
    run: RunDir, backend: FixedBackend, caplog: pytest.LogCaptureFixture
) -> None:
    write_manifest(
        run.manifest("test"), [Utterance("u", "/0.wav", 2.0, REFERENCES[0], keywords=("metoprolol", "stent"))]
    )
    with caplog.at_level(logging.WARNING):
        result = backend.evaluate(recipe(), run)
    assert result.scores["test"].base.prompted == PromptedKeywords(1, 1)
    assert "test: 1 of 1 prompts contain a keyword of their reference" in caplog.text
    terms = result.scores["test"].adapted.terms
    assert terms and terms.seen.support == 1  # terms of the column, without a file


def test_keyword_lists_of_each_size(run: RunDir, backend: FixedBackend) -> None:
    rows = [
        Utterance(f"u{number}", f"/{number}.wav", 2.0, text, extra={"terms": ["metoprolol", "apixaban", "stent"]})
        for number, text in enumerate(REFERENCES)
    ]
    write_manifest(run.manifest("test"), rows)
    result = backend.evaluate(recipe(evaluate=EvaluateSection(keyword_lists=[0, 2], probes=False)), run)
    lists = result.keyword_lists
    assert lists
    kinds = [(row.set, row.distractors, row.true_terms) for row in lists.base]
    assert kinds == [("test", None, False), ("test", 0, True), ("test", 2, True), ("test", 2, False)]
    assert [row.mean_keywords for row in lists.base] == pytest.approx([0, 2 / 3, 2 + 2 / 3, 2])
    assert [row.recall for row in lists.base] == [0, 0, 0, 0] and lists.adapted[0].recall == 1
    none, own, more, others = (backend.models[0].prompts[start : start + 3] for start in (3, 6, 9, 12))
    assert [keywords for *_, keywords in none] == [(), (), ()]
    assert [keywords for *_, keywords in own] == [("metoprolol",), ("apixaban",), ()]
    assert {"metoprolol", "stent"} <= {*more[0][2], "stent"} and all(len(keywords) >= 2 for *_, keywords in more)
    assert all(item not in words for item, (*_, words) in zip(["metoprolol", "apixaban"], others[:2], strict=True))
    first, *later = lists.adapted
    assert first.difference is None and all(row.difference and row.difference.difference == 0 for row in later)
    assert first.terms and first.terms.unseen.recall == 1 and first.terms.unseen.low is not None
    assert first.precision == 1 and first.precision_interval and first.precision_interval.high == 1
    assert (first.without_term.utterances, first.without_term.wer) == (1, pytest.approx(2 / 3))
    assert first.interval.low < first.wer < first.interval.high


def test_keyword_lists_on_the_canary_have_distractors_only(run: RunDir, backend: FixedBackend) -> None:
    backend.hypotheses["adapted"] = [*HYPOTHESES["adapted"][:2], "apixaban apixaban today"]
    rows = [Utterance("u0", "/0.wav", 2.0, REFERENCES[2], extra={"terms": ["apixaban"]})]
    write_manifest(run.manifest("test"), rows)
    write_manifest(run.manifest("canary"), [Utterance("c0", "/1.wav", 2.0, REFERENCES[2])])
    settings = EvaluateSection(keyword_lists=[0, 1], probes=False)
    result = backend.evaluate(recipe(evaluate=settings), run)
    assert result.keyword_lists
    canary = [row for row in result.keyword_lists.adapted if row.set == "canary"]
    assert [(row.distractors, row.true_terms) for row in canary] == [(None, False), (1, False)]
    assert [row.false_keywords_per_clip for row in canary] == [0, 1]


def test_keyword_lists_are_shortened_to_the_window(run: RunDir, backend: FixedBackend) -> None:
    rows = [Utterance("u0", "/0.wav", 2.0, REFERENCES[0], extra={"terms": ["metoprolol", "stent", "aspirin"]})]
    write_manifest(run.manifest("test"), rows)
    backend.room = 2
    result = backend.evaluate(recipe(evaluate=EvaluateSection(keyword_lists=[0, 2], probes=False)), run)
    assert result.keyword_lists
    assert [row.shortened for row in result.keyword_lists.base] == [0, 0, 1, 0]
    assert [row.mean_keywords for row in result.keyword_lists.base] == [0, 1, 2, 2]
    assert all("metoprolol" in words for *_, words in backend.models[0].prompts[2:4])


def test_suspicious_references_are_listed(run: RunDir) -> None:
    backend = FixedBackend(
        {system: ["take ramipril now", *texts[1:]] for system, texts in HYPOTHESES.items()},
        lambda text: "take ramiprill now",
    )
    backend.evaluate(recipe(), run)
    rows = [json.loads(line) for line in run.suspicious.read_text(encoding="utf-8").splitlines()]
    assert [(row["id"], row["text"], row["pred_text_ctc"]) for row in rows] == [
        ("u0", REFERENCES[0], "take ramiprill now")
    ]
    assert 0 < rows[0]["suspicion"] < 1


def test_the_base_is_freed_before_the_adapted_model_is_loaded(run: RunDir) -> None:
    """Otherwise the memory of two models is needed."""

    class OneAtATime(FixedBackend):
        def load(self, recipe: Recipe, run: RunDir, system: str) -> Any:
            assert not [reference for reference in alive if reference() is not None]
            model = FixedModel(system)
            alive.append(weakref.ref(model))
            return model

    alive: list[weakref.ref[FixedModel]] = []
    OneAtATime().evaluate(recipe(evaluate=EvaluateSection(probes=False)), run)
    assert len(alive) == 2
