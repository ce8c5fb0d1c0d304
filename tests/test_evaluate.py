"""The evaluation of a run, with recognizers whose words are known."""

import json
from pathlib import Path

import pytest

from finetune import evaluate as module
from finetune.config import DataSection, Recipe
from finetune.data.manifest import Utterance, write_manifest
from finetune.decoding.recognize import DecodeOptions, Hypothesis
from finetune.runs import RunDir

SAID = ["take metoprolol now", "give apixaban twice", "nothing new today"]
HEARD = {"base": ["take met now", "give a pixie ban twice", "nothing new today"],
         "adapted": ["take metoprolol now", "give apixaban twice", "nothing new to day"]}


class Recognizer:
    """Says what it is told to; `adapted` after `load_adapter`."""

    which = "base"


def listen(model: Recognizer, utterances: list[Utterance], options: DecodeOptions) -> list[Hypothesis]:
    texts = [HEARD[model.which][SAID.index(item.text)] for item in utterances]
    return [Hypothesis(item.id, text, (1, 2, 3), -1.0, 0.5, 1 if options.speculative else 4, 3, 2, False)
            for item, text in zip(utterances, texts, strict=True)]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunDir:
    monkeypatch.setattr(module, "load_model", lambda *_: Recognizer())
    monkeypatch.setattr(module, "load_adapter", lambda model, _: setattr(model, "which", "adapted"))
    monkeypatch.setattr(module, "recognize", listen)
    run = RunDir(tmp_path / "run")
    rows = [Utterance(f"u{number}", f"/{number}.wav", 2.0, text) for number, text in enumerate(SAID)]
    write_manifest(run.manifest("test"), rows)
    write_manifest(run.manifest("train"), [Utterance("t", "/t.wav", 1.0, "metoprolol again")])
    return run


def test_scores_terms_and_decoders(run: RunDir, tmp_path: Path) -> None:
    (tmp_path / "terms.txt").write_text("metoprolol\napixaban\n")
    data = DataSection(train=["-"], valid=["-"], test=["-"], terms=str(tmp_path / "terms.txt"))
    result = module.evaluate(Recipe(name="x", data=data), run)
    base, adapted = result.scores["test"]["base"], result.scores["test"]["adapted"]
    assert (base["wer"], base["substitutions"], base["insertions"]) == (pytest.approx(4 / 9), 2, 2)
    assert adapted["wer"] == pytest.approx(2 / 9)
    assert base["interval"]["low"] <= base["wer"] <= base["interval"]["high"]
    assert base["terms"]["seen"]["recall"] == 0 and adapted["terms"]["seen"]["recall"] == 1
    assert adapted["terms"]["unseen"] == {"recall": 1.0, "precision": 1.0, "support": 1}
    assert result.differences["test"]["difference"] == pytest.approx(-2 / 9)
    assert result.decode["tokens_equal"] is True
    assert result.decode["acceptance"] == pytest.approx(2 / 3, abs=1e-3)
    assert (result.decode["greedy_passes"], result.decode["speculative_passes"]) == (4, 1)
    assert list(result.scores) == ["test"]


def test_every_hypothesis_is_kept(run: RunDir) -> None:
    module.evaluate(Recipe(name="x", data=DataSection(train=["-"], valid=["-"], test=["-"])), run)
    for which, texts in HEARD.items():
        lines = run.hypotheses("test", which).read_text(encoding="utf-8").splitlines()
        rows = [json.loads(line) for line in lines]
        assert [(row["text"], row["pred_text"]) for row in rows] == list(zip(SAID, texts, strict=True))
