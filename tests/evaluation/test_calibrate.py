"""`finetune calibrate` on the embedded model: what it measures, which thresholds it keeps, what it refuses."""

import json
import os
import shutil
from dataclasses import asdict, replace
from itertools import pairwise
from pathlib import Path

import jiwer
import pytest
from command import Command
from conftest import VOCABULARY

from finetune.core.config import EvaluateSection
from finetune.core.options import DecodingOptions
from finetune.data.manifest import Utterance, read_manifest, write_manifest
from finetune.evaluation.calibrate import (
    ENTROPIES,
    PROBABILITIES,
    CalibrateResult,
    Point,
    Thresholds,
    calibrate,
    frontier_table,
)
from finetune.inference.recognize import recognize
from finetune.inference.saved_options import CALIBRATION, options_for
from finetune.inference.transcribe import load
from finetune.metrics.normalizer import normalize

NORMALIZER = EvaluateSection().normalizer


@pytest.fixture(scope="module")
def speech() -> list[Utterance]:
    """Four clips on which the embedded model loses words with its fastest pair, and gains some with a slower one."""
    return [
        replace(item, audio_filepath=str(VOCABULARY / item.audio_filepath))
        for item in read_manifest(VOCABULARY / "valid.jsonl")[4:8]
    ]


@pytest.fixture(scope="module")
def folder(nano: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(shutil.copytree(nano, tmp_path_factory.mktemp("calibrated") / "model"))


@pytest.fixture(scope="module")
def manifest(speech: list[Utterance], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The clips, and one without a transcript."""
    path = tmp_path_factory.mktemp("clips") / "valid.jsonl"
    write_manifest(path, [*speech, replace(speech[0], id="untold", text="")])
    return path


@pytest.fixture(scope="module")
def generous(folder: Path, manifest: Path) -> CalibrateResult:
    """What is measured and chosen where any WER may be lost."""
    return calibrate(str(folder), str(manifest), 1000.0, options_for(folder).instruction, DecodingOptions(), NORMALIZER)


def test_every_pair_is_measured_and_without_a_limit_the_fastest_is_chosen(generous: CalibrateResult) -> None:
    assert {point.thresholds for point in generous.points} == {
        Thresholds(entropy, chance) for entropy in ENTROPIES for chance in PROBABILITIES
    }
    assert len(generous.points) == len(ENTROPIES) * len(PROBABILITIES)
    assert all((one.passes, one.wer) <= (two.passes, two.wer) for one, two in pairwise(generous.points))
    assert generous.chosen is generous.points[0] and generous.chosen.passes < generous.lossless.passes
    assert generous.lossless.thresholds is None and generous.lossless.unseen == 0
    assert all(point.seconds > 0 and 0 <= point.unseen <= 1 for point in generous.points)


def test_the_strictest_pair_is_lossless(generous: CalibrateResult) -> None:
    """So one pair fits whatever may be lost."""
    strict = next(point for point in generous.points if point.thresholds == Thresholds(0.0, 0.5))
    assert (strict.wer, strict.passes, strict.unseen) == (generous.lossless.wer, generous.lossless.passes, 0)


def test_the_command_keeps_the_fastest_pair_within_the_limit(
    finetune: Command, folder: Path, manifest: Path, speech: list[Utterance], generous: CalibrateResult
) -> None:
    """Half a point less than the fastest pair loses may be lost: it is passed over, and the next one that fits kept."""
    lost = {point: 100 * (point.wer - generous.lossless.wer) for point in generous.points}
    limit = round(lost[generous.points[0]] - 0.5, 3)
    assert limit > 0, "on these clips the fastest pair must lose something"
    fitting = [point for point in generous.points if lost[point] <= limit]
    chosen = min(fitting, key=lambda point: (point.passes, point.wer))
    assert chosen.thresholds is not None and len(fitting) < len(generous.points)

    said = finetune("calibrate", "--model", folder, "--manifest", manifest, "--max-wer-loss", limit)
    assert (said.code, said.err) == (0, "")
    kept_options = options_for(folder).decoding
    assert Thresholds(kept_options.max_entropy, kept_options.min_probability) == chosen.thresholds
    assert json.loads((folder / CALIBRATION).read_text()) == {
        "max_entropy": chosen.thresholds.max_entropy,
        "min_probability": chosen.thresholds.min_probability,
        "wer": chosen.wer,
        "lossless_wer": generous.lossless.wer,
        "max_wer_loss": limit,
        "passes": chosen.passes,
        "lossless_passes": generous.lossless.passes,
        "manifest": str(manifest),
        "clips": len(speech),
    }
    kept = [line for line in said.out.splitlines() if "<- kept" in line]
    assert len(kept) == 1 and kept[0].endswith(f"<- kept (at most {limit:g} points lost)")
    assert kept[0].split()[:4] == [
        f"{chosen.thresholds.max_entropy:.2f}",
        f"{chosen.thresholds.min_probability:.2f}",
        f"{100 * chosen.wer:.2f}%",
        f"{chosen.passes:.2f}",
    ]

    # What is written is what decoding with the pair gives.
    model, relaxed = load(str(folder)), replace(DecodingOptions("relaxed"), **asdict(chosen.thresholds))
    for options, point in ((DecodingOptions(), generous.lossless), (relaxed, chosen)):
        rows = recognize(model, speech, options_for(folder).instruction, options)
        texts = [
            [normalize(text, NORMALIZER) for text in side]
            for side in ([item.text for item in speech], [row.text for row in rows])
        ]
        assert jiwer.wer(*texts) == pytest.approx(point.wer)
        assert sum(row.passes for row in rows) / len(rows) == point.passes


def test_the_table_has_the_pairs_that_no_other_beats() -> None:
    """Of two with the same WER the faster, and none that is slower and no better; lossless decoding comes last."""
    points = (
        Point(Thresholds(3.0, 0.5), 0.3, 0.0, 0.0104, 1.0),
        Point(Thresholds(3.0, 0.02), 0.3, 0.0, 0.012, 1.0),
        Point(Thresholds(1.5, 0.2), 0.25, 1.5, 0.02, 0.75),
        Point(Thresholds(0.7, 0.2), 0.28, 2.0, 0.02, 0.5),
        Point(Thresholds(0.0, 0.1), 0.1234, 3.25, 0.1, 0.0),
        Point(Thresholds(0.0, 0.5), 0.1234, 9.0, 0.2, 0.0),
    )
    result = CalibrateResult(points, Point(None, 0.1234, 9.0, 0.2, 0.0), points[2], 13.0)
    assert frontier_table(result) == [
        " entropy  probability      WER   passes  ms a clip  CTC alone",
        "    3.00         0.50   30.00%     0.00       10.4       100%",
        "    1.50         0.20   25.00%     1.50       20.0        75%  <- kept (at most 13 points lost)",
        "    0.00         0.10   12.34%     3.25      100.0         0%",
        "             lossless   12.34%     9.00      200.0         0%",
    ]


def test_a_model_that_is_no_folder_is_refused(finetune: Command, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for model in ("ibm-granite/granite-4.0-1b-speech", tmp_path / "file"):
        said = finetune("calibrate", "--model", model, "--manifest", "none.jsonl", "--max-wer-loss", 1)
        assert said == (1, "", f"finetune: {model}: not a directory; the thresholds are saved in the model's folder\n")


def test_a_folder_that_cannot_be_written_is_refused_before_the_model_is_loaded(
    finetune: Command, tmp_path: Path
) -> None:
    locked = tmp_path / "locked"
    locked.mkdir(mode=0o500)
    if os.access(locked, os.W_OK):
        locked = Path("/proc/sys")  # root may write everywhere but there
    if not locked.is_dir() or os.access(locked, os.W_OK):
        pytest.skip("this user can write into every folder")
    said = finetune("calibrate", "--model", locked, "--manifest", "none.jsonl", "--max-wer-loss", 1)
    assert said == (
        1,
        "",
        f"finetune: {locked}: not writable; the thresholds are saved in the model's folder, "
        "so calibrate a copy of it\n",
    )


@pytest.mark.parametrize(
    ("points", "code", "message"),
    [
        ("-1", 2, "finetune: --max-wer-loss -1: must be 0 or more percentage points of WER"),
        ("-0.001", 2, "finetune: --max-wer-loss -0.001: must be 0 or more percentage points of WER"),
        ("nan", 2, "finetune: --max-wer-loss nan: must be 0 or more percentage points of WER"),
        ("inf", 2, "finetune: --max-wer-loss inf: must be 0 or more percentage points of WER"),
        ("some", 2, "argument --max-wer-loss: invalid float value: 'some'"),
        ("0", 1, "finetune: none.jsonl: cannot be read (No such file or directory)"),  # a loss of 0 is one
    ],
)
def test_a_loss_that_is_none_is_refused(
    finetune: Command, tmp_path: Path, points: str, code: int, message: str
) -> None:
    said = finetune("calibrate", "--model", tmp_path, "--manifest", "none.jsonl", "--max-wer-loss", points)
    assert (said.code, said.out) == (code, "") and message in said.err


def test_clips_without_transcripts_are_refused(
    finetune: Command, nano: Path, tmp_path: Path, speech: list[Utterance]
) -> None:
    model, manifest = Path(shutil.copytree(nano, tmp_path / "model")), tmp_path / "untold.jsonl"
    for clips, message in (
        ([replace(item, text="") for item in speech], "no clip with a transcript to calibrate on"),
        ([], "the manifest is empty"),
    ):
        write_manifest(manifest, clips)
        said = finetune("calibrate", "--model", model, "--manifest", manifest, "--max-wer-loss", 1)
        assert said == (1, "", f"finetune: {manifest}: {message}\n")
    assert not (model / CALIBRATION).exists()
