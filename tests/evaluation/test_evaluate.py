"""The evaluation of a run, with recognizers whose words are known."""

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from finetune.core.config import DataSection, EvaluateSection, ModelSection, Recipe
from finetune.core.files import read_json
from finetune.core.options import DecodingOptions
from finetune.core.run_dir import SCHEMA, RunDir
from finetune.data.manifest import Utterance, write_manifest
from finetune.evaluation import decode, utterances
from finetune.evaluation import evaluate as module
from finetune.inference.recognize import Hypothesis

SAID = ["take metoprolol now", "give apixaban twice", "nothing new today"]
HEARD = {
    "base": ["take met now", "give a pixie ban twice", "nothing new today"],
    "adapted": ["take metoprolol now", "give apixaban twice", "nothing new to day"],
}


class Recognizer:
    """Says what it is told to; `adapted` after `load_adapter`. Keeps the prompts it was given."""

    which = "base"

    def __init__(self) -> None:
        self.asked: list[tuple[str, str, tuple[str, ...]]] = []


MODELS: list[Recognizer] = []


def listen(
    model: Recognizer, utterances: list[Utterance], instruction: str, options: DecodingOptions
) -> list[Hypothesis]:
    model.asked += [(item.id, instruction, item.keywords) for item in utterances]
    heard = dict(zip(SAID, HEARD[model.which], strict=True)) | {"": "um"}
    texts = [heard.get(item.text, item.text) for item in utterances]
    return [
        Hypothesis(item.id, text, (1, 2, 3), -1.0, 0.5, 1 if options.decoder != "greedy" else 4, 3, 2, False)
        for item, text in zip(utterances, texts, strict=True)
    ]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunDir:
    def load(*_: Any) -> Recognizer:
        MODELS.append(Recognizer())
        return MODELS[-1]

    MODELS.clear()
    monkeypatch.setattr(module, "load_model", load)
    monkeypatch.setattr(module, "load_adapter", lambda model, _: setattr(model, "which", "adapted"))
    monkeypatch.setattr(decode, "recognize", listen)
    monkeypatch.setattr(module, "ctc_texts", lambda _, items: [item.text.replace("now", "never") for item in items])
    monkeypatch.setattr(utterances, "load_audio", lambda *_: np.random.default_rng(0).normal(0, 0.1, 32_000))
    run = RunDir(tmp_path / "run")
    rows = [Utterance(f"u{number}", f"/{number}.wav", 2.0, text) for number, text in enumerate(SAID)]
    write_manifest(run.manifest("test"), rows)
    write_manifest(run.manifest("train"), [Utterance("t", "/t.wav", 1.0, "metoprolol again")])
    return run


def recipe(**sections: Any) -> Recipe:
    data = DataSection(train=["-"], valid=["-"], test=["-"])
    return Recipe(name="x", **{"model": ModelSection(base="-"), "data": data, **sections})


def test_scores_terms_and_decoders(run: RunDir, tmp_path: Path) -> None:
    (tmp_path / "terms.txt").write_text("metoprolol\napixaban\n")
    data = DataSection(train=["-"], valid=["-"], test=["-"], terms=str(tmp_path / "terms.txt"))
    result = module.evaluate(recipe(data=data), run)
    base, adapted = result.scores["test"]["base"], result.scores["test"]["adapted"]
    assert (base["wer"], base["substitutions"], base["insertions"]) == (pytest.approx(4 / 9), 2, 2)
    assert adapted["wer"] == pytest.approx(2 / 9)
    assert base["interval"]["low"] <= base["wer"] <= base["interval"]["high"]
    assert "only 3 blocks" in base["interval"]["note"]
    assert base["terms"]["seen"]["recall"] == 0 and adapted["terms"]["seen"]["recall"] == 1
    unseen = adapted["terms"]["unseen"]
    assert (unseen["recall"], unseen["precision"], unseen["support"]) == (1.0, 1.0, 1)
    assert result.differences["test"]["difference"] == pytest.approx(-2 / 9)
    assert result.differences["test"]["mapsswe"]["segments"] == 3
    assert result.decode["tokens_equal"] is True
    assert result.decode["acceptance"] == pytest.approx(2 / 3, abs=1e-3)
    assert (result.decode["greedy_passes"], result.decode["speculative_passes"]) == (4, 1)
    assert list(result.scores) == ["test"]


def test_the_file_of_scores_says_all_and_how(run: RunDir) -> None:
    result = module.evaluate(recipe(), run)
    found = read_json(run.scores)
    assert found["schema"] == SCHEMA and found["settings"]["normalizer"] == "basic@1"
    assert found["provenance"]["dtype"] == "float32" and found["provenance"]["libraries"]["torch"]
    assert {found["decode"][f"{name}_wer"] for name in ("greedy", "speculative")} == {
        result.scores["test"]["adapted"]["wer"]
    }
    assert found["scores"] == json.loads(json.dumps(result.scores))
    for which in ("base", "adapted"):
        assert found["probes"][which]["with_output"] == found["probes"][which]["clips"] == 8
        assert found["probes"][which]["outputs"][0]["text"] == "um"
    assert {"reference": "today", "hypothesis": "day", "count": 1} in found["details"]["test"]["adapted"]["confusions"]
    assert [table["column"] for table in found["groups"]["test"]] == ["duration", "bandwidth", "snr"]
    assert found["keyword_lists"] == {} and found["suspicious"] == 0


def test_every_hypothesis_is_kept(run: RunDir) -> None:
    module.evaluate(recipe(evaluate=EvaluateSection(probes=False)), run)
    for which, texts in HEARD.items():
        lines = run.hypotheses("test", which).read_text(encoding="utf-8").splitlines()
        rows = [json.loads(line) for line in lines]
        assert [(row["text"], row["pred_text"]) for row in rows] == list(zip(SAID, texts, strict=True))
        trn = run.transcripts("test", which, "trn").read_text(encoding="utf-8").splitlines()
        assert [line.rsplit(" ", 1)[0] for line in trn] == texts
    both = [json.loads(line) for line in run.utterances.read_text(encoding="utf-8").splitlines()]
    assert [(row["pred_text"], row["pred_text_base"]) for row in both] == list(
        zip(*reversed(HEARD.values()), strict=True)
    )
    assert [(row["words"], row["errors"], row["errors_base"]) for row in both] == [(3, 0, 1), (3, 0, 3), (3, 2, 0)]
    assert not run.probes.exists()


def test_each_corpus_of_a_canary_and_each_translation_is_scored_by_itself(run: RunDir) -> None:
    rows = [
        Utterance("c0", "/a.wav", 2.0, "some words here", extra={"corpus": "a.jsonl"}),
        Utterance(
            "c1",
            "/b.wav",
            2.0,
            "Das ist ein Haus",
            extra={"corpus": "b.jsonl", "target_language": "de", "instruction": "translate the speech to German"},
        ),
    ]
    write_manifest(run.manifest("canary"), rows)
    result = module.evaluate(recipe(), run)
    assert list(result.scores) == ["test", "canary", "canary: a.jsonl", "canary: b.jsonl"]
    assert result.scores["canary"]["base"]["reference_words"] == 3  # a translation's words are no errors of hearing
    assert "translation" not in result.scores["canary"]["base"]
    assert result.scores["canary: b.jsonl"]["adapted"]["translation"]["de"]["bleu"] == pytest.approx(100)
    assert [found.get("p_holm") for found in result.differences.values()] == [None, 1.0, 1.0, 1.0]
    asked = {name: instruction for name, instruction, _ in MODELS[0].asked}
    assert asked["c1"] == "translate the speech to German" and asked["c0"] == recipe().model.instruction


def test_japanese_is_scored_in_characters_and_apart(run: RunDir) -> None:
    rows = [
        Utterance("c0", "/a.wav", 2.0, "some words here", language="en"),
        Utterance("c1", "/b.wav", 2.0, "今日は、晴れ。", language="ja"),
        Utterance("c2", "/c.wav", 2.0, "明日は雨", language="ja-JP"),
    ]
    write_manifest(run.manifest("canary"), rows)
    result = module.evaluate(recipe(), run)
    assert list(result.scores) == ["test", "canary", "canary: Japanese"]
    assert result.scores["canary"]["base"]["reference_words"] == 3
    japanese = result.scores["canary: Japanese"]["adapted"]
    assert (japanese["normalizer"], japanese["reference_words"], japanese["cer"]) == ("ja-cer@1", 9, 0.0)
    write_manifest(run.manifest("canary"), rows[1:])
    assert module.evaluate(recipe(), run).scores["canary"]["base"]["normalizer"] == "ja-cer@1"


def test_told_keywords_are_said_loudly(run: RunDir, caplog: pytest.LogCaptureFixture) -> None:
    write_manifest(run.manifest("test"), [Utterance("u", "/0.wav", 2.0, SAID[0], keywords=("metoprolol", "stent"))])
    with caplog.at_level(logging.WARNING):
        result = module.evaluate(recipe(), run)
    assert result.scores["test"]["base"]["prompted"] == {"utterances": 1, "said": 1}
    assert "test: 1 of 1 prompts hold a keyword that is said" in caplog.text
    assert result.scores["test"]["adapted"]["terms"]["seen"]["support"] == 1  # the column stands in for the file


def test_keyword_lists_of_each_size(run: RunDir) -> None:
    rows = [
        Utterance(f"u{number}", f"/{number}.wav", 2.0, text, extra={"terms": ["metoprolol", "apixaban", "stent"]})
        for number, text in enumerate(SAID)
    ]
    write_manifest(run.manifest("test"), rows)
    module.evaluate(recipe(evaluate=EvaluateSection(keyword_lists=[0, 2], probes=False)), run)
    found = read_json(run.scores)["keyword_lists"]
    assert [row["distractors"] for row in found["base"]] == [None, 0, 2]
    assert [row["mean_keywords"] for row in found["base"]] == pytest.approx([0, 2 / 3, 2 + 2 / 3])
    assert [row["recall"] for row in found["base"]] == [0, 0, 0] and found["adapted"][0]["recall"] == 1
    none, own, more = (MODELS[0].asked[start : start + 3] for start in (3, 6, 9))
    assert [keywords for *_, keywords in none] == [(), (), ()]
    assert [keywords for *_, keywords in own] == [("metoprolol",), ("apixaban",), ()]
    assert {"metoprolol", "stent"} <= {*more[0][2], "stent"} and all(len(keywords) >= 2 for *_, keywords in more)


def test_clips_whose_text_stands_alone_are_listed(run: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    for which, texts in HEARD.items():
        monkeypatch.setitem(HEARD, which, ["take ramipril now", *texts[1:]])
    monkeypatch.setattr(module, "ctc_texts", lambda _, items: ["take ramiprill now" for _ in items])
    module.evaluate(recipe(), run)
    rows = [json.loads(line) for line in run.suspicious.read_text(encoding="utf-8").splitlines()]
    assert [(row["id"], row["text"], row["pred_text_ctc"]) for row in rows] == [("u0", SAID[0], "take ramiprill now")]
    assert 0 < rows[0]["suspicion"] < 1
