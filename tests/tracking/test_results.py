"""What trackers receive after an evaluation, and what of the data leaves the machine."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import embedded
from tracker_fakes import Seen

from bench.synthetic_run import synthetic_run
from finetune.core.config import Recipe
from finetune.core.recipe import load_recipe
from finetune.core.run_dir import RunDir
from finetune.data.audio import load_audio
from finetune.data.manifest import Utterance
from finetune.metrics.results import read_results
from finetune.report import tables
from finetune.tracking.results import last_step, track_results, tracked_results
from finetune.tracking.trackers import Table, TrackedResults

SPEAKERS = ("patient-anna", "patient-bert")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    """Six clips with audio and one whose audio is gone; the adapted model makes errors on some."""
    folder = tmp_path_factory.mktemp("runs")
    clips = [
        Utterance(item.id, item.audio_filepath, item.duration, item.text, speaker=SPEAKERS[number % 2])
        for number, item in enumerate(embedded("test", 6))
    ]
    clips.append(Utterance("gone", "/gone/a.wav", 2.0, "audio that vanished", speaker=SPEAKERS[0]))
    terms = folder / "terms.txt"
    terms.write_text("".join(f"{item.text.split()[0]}\n" for item in clips), encoding="utf-8")
    base = {item.id: " ".join(item.text.split()[::2]) for item in clips}
    adapted = {item.id: item.text if number % 2 else f"{item.text} extra" for number, item in enumerate(clips)}
    canary = [Utterance(f"c{number}", f"/gone/{number}", 2.0, "some general words") for number in range(5)]
    texts = {item.id: item.text for item in canary}
    return synthetic_run(
        folder / "tracked",
        {"train": clips[:1], "test": clips, "canary": canary},
        {"base": base | texts, "adapted": adapted | texts},
        {"data": {"terms": str(terms)}, "evaluate": {"replicas": 200}},
    )


def recipe_of(run: RunDir, samples: str, trackers: tuple[str, ...] = ()) -> Recipe:
    overrides = [f"machine.tracker_samples={samples}", f"machine.trackers=[{','.join(trackers)}]"]
    return load_recipe(run.resolved, overrides)[0]


def cells(results: TrackedResults) -> list[Any]:
    return [cell for table in results.tables.values() for row in table.rows for cell in row]


def column(table: Table, name: str) -> list[Any]:
    return [row[list(table.columns).index(name)] for row in table.rows]


def test_numbers_and_intervals_are_those_of_the_evaluation(run: RunDir) -> None:
    results, sent = read_results(run.scores), tracked_results(recipe_of(run, "none"), run)
    for name in ("test", "canary"):
        for system, scores in results.scores[name].items():
            prefix = f"results/{name}/{system}/wer"
            found = [sent.numbers[prefix], sent.numbers[f"{prefix}_low"], sent.numbers[f"{prefix}_high"]]
            assert found == [scores.wer, scores.interval.low, scores.interval.high]
            row = (name, system, scores.utterances, scores.reference_words, "wer", *found)
            assert row in sent.tables["scores"].rows
        assert sent.numbers[f"results/{name}/p_value"] == results.differences[name].p_value
    terms = results.scores["test"].adapted.terms
    assert terms and sent.numbers["results/test/adapted/term_recall_unseen"] == terms.unseen.recall
    assert sent.numbers["results/test/adapted/term_recall_unseen_low"] == terms.unseen.low
    assert sent.numbers["selection/valid/base/wer"] == 0.5
    assert "results/probes/adapted/words_per_minute" in sent.numbers
    assert column(sent.tables["verdict"], "subject") == ["Domain", "General speech", "Hallucinations"]
    assert last_step(run) == 40


def test_by_default_no_word_of_the_data_is_sent(run: RunDir) -> None:
    sent = tracked_results(recipe_of(run, "none"), run)
    assert Recipe.model_fields["machine"].default.tracker_samples == "none"
    assert not sent.sounds and not {*sent.tables} & {"terms", "clips", "confusions", "groups/speaker"}
    private = [item for clip in embedded("test", 6) for item in (clip.text, clip.id, clip.audio_filepath)]
    private += [*SPEAKERS, *{word for clip in embedded("test", 6) for word in clip.text.split() if len(word) > 7}]
    text = " ".join(map(str, [*cells(sent), *sent.numbers, *sent.tables]))
    assert not [item for item in private if item in text]


def test_with_text_the_terms_and_clips_of_the_report_are_sent(run: RunDir) -> None:
    sent, details = tracked_results(recipe_of(run, "text"), run), read_results(run.scores).details["test"]
    expected = tables.terms(details.base.terms, details.adapted.terms)
    assert column(sent.tables["terms"], "term") == [row.term for row in expected]
    assert column(sent.tables["terms"], "adapted") == [row.adapted for row in expected]
    clips = sent.tables["clips"]
    assert column(clips, "list")[0] == "worst" and {"worst", "fixed"} <= {*column(clips, "list")}
    worst = clips.rows[0]
    assert worst[clips.columns.index("adapted")] == f"{worst[clips.columns.index('reference')]} extra"
    assert "groups/speaker" in sent.tables and not sent.sounds


def test_audio_is_sent_once_for_each_clip(run: RunDir, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    sent = tracked_results(recipe_of(run, "audio"), run)
    titles = [sound.title.partition(": ")[2] for sound in sent.sounds]
    listed = {*column(sent.tables["clips"], "id")}
    assert len(titles) == len({*titles}) and {*titles} == listed - {"gone"} and "gone" in listed
    clip = next(item for item in embedded("test", 6) if item.id == titles[0])
    wave = load_audio(clip.audio_filepath, 0.0, clip.duration)
    assert np.abs(sent.sounds[0].samples / 2**15 - wave.clip(-1, 1)).max() < 1e-3
    assert "1 clip sent without audio" in caplog.text


def test_the_results_follow_the_last_step(run: RunDir, fakes: Seen) -> None:
    track_results(recipe_of(run, "audio", ("wandb", "tensorboard", "trackio")), run)
    assert fakes["wandb"][2]["optimizer_step"] == 40 and "clips/audio" in fakes["wandb"][2]
    assert fakes["tensorboard"][0] == ("tensorboard", 41) and fakes["trackio"][1][1] == 40
    assert [fakes[name][-1] for name in ("wandb", "tensorboard", "trackio")] == ["closed"] * 3


def test_results_that_cannot_be_read_are_a_warning(
    tmp_path: Path, run: RunDir, fakes: Seen, caplog: pytest.LogCaptureFixture
) -> None:
    track_results(recipe_of(run, "none", ("wandb",)), RunDir(tmp_path))
    assert "the trackers receive no results" in caplog.text and not fakes["wandb"]


def test_without_trackers_nothing_is_read(tmp_path: Path, run: RunDir, caplog: pytest.LogCaptureFixture) -> None:
    track_results(recipe_of(run, "none"), RunDir(tmp_path))
    assert not caplog.records
