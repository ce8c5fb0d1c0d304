"""`finetune calibrate` on the embedded model: measurements, the chosen thresholds, errors."""

import json
import os
import shutil
from dataclasses import asdict, replace
from itertools import pairwise
from pathlib import Path

import jiwer
import pytest
import torch
from command import Command
from conftest import VOCABULARY
from family import make_bpe_head

from finetune.core.config import EvaluateSection
from finetune.core.model_limits import FILE, read_limits, write_limits
from finetune.core.options import DecodingOptions
from finetune.data.manifest import Utterance, read_manifest, write_manifest
from finetune.evaluation.calibrate import (
    ENTROPIES,
    PROBABILITIES,
    CalibrateResult,
    Point,
    Thresholds,
    calibrate,
    choose,
    frontier_table,
)
from finetune.inference.recognize import recognize
from finetune.inference.saved_options import CALIBRATION, options_for
from finetune.inference.transcribe import load
from finetune.metrics.normalizer import normalize
from finetune.metrics.wer import score

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
    """The clips, one without a transcript, and two that are decoded without the CTC head."""
    path = tmp_path_factory.mktemp("clips") / "valid.jsonl"
    translation = replace(speech[0], id="translation", task="translate", target_language="de")
    japanese = replace(speech[0], id="japanese", language="ja")
    write_manifest(path, [*speech, replace(speech[0], id="no-transcript", text=""), translation, japanese])
    return path


@pytest.fixture(scope="module")
def unlimited(folder: Path, manifest: Path) -> CalibrateResult:
    """The result without a limit on the WER increase."""
    return calibrate(str(folder), str(manifest), 1000.0, options_for(folder).instruction, DecodingOptions(), NORMALIZER)


def test_every_pair_is_measured_and_without_a_limit_the_fastest_is_chosen(unlimited: CalibrateResult) -> None:
    assert {point.thresholds for point in unlimited.points} == {
        Thresholds(entropy, probability) for entropy in ENTROPIES for probability in PROBABILITIES
    }
    assert len(unlimited.points) == len(ENTROPIES) * len(PROBABILITIES)
    assert all((one.passes, one.wer) <= (two.passes, two.wer) for one, two in pairwise(unlimited.points))
    assert unlimited.chosen is unlimited.points[0] and unlimited.chosen.passes < unlimited.lossless.passes
    assert unlimited.lossless.thresholds is None and unlimited.lossless.ctc_only == 0
    assert all(point.seconds > 0 and 0 <= point.ctc_only <= 1 for point in unlimited.points)
    assert any(point.passes == 0 for point in unlimited.points)
    assert all((point.ctc_only == 1) == (point.passes == 0) for point in unlimited.points)


def test_the_strictest_pair_is_lossless(unlimited: CalibrateResult) -> None:
    """So one pair is allowed for every limit."""
    strict = next(point for point in unlimited.points if point.thresholds == Thresholds(0.0, 0.5))
    assert (strict.wer, strict.passes, strict.ctc_only) == (unlimited.lossless.wer, unlimited.lossless.passes, 0)


def test_the_command_saves_the_fastest_pair_within_the_limit(
    finetune: Command, folder: Path, manifest: Path, speech: list[Utterance], unlimited: CalibrateResult
) -> None:
    """The limit is half a point below the loss of the fastest pair: the fastest of the other pairs is chosen."""
    loss = {point: 100 * (point.wer - unlimited.lossless.wer) for point in unlimited.points}
    limit = round(loss[unlimited.points[0]] - 0.5, 3)
    assert limit > 0, "the fastest pair must lose WER on these clips"
    allowed = [point for point in unlimited.points if loss[point] <= limit]
    chosen = min(allowed, key=lambda point: (point.passes, point.wer))
    assert chosen.thresholds is not None and len(allowed) < len(unlimited.points)

    write_limits(folder, replace(read_limits(folder), no_speech=0.001))
    result = finetune("calibrate", "--model", folder, "--manifest", manifest, "--max-wer-loss", limit)
    assert (result.code, result.err) == (0, "")
    assert result.out.endswith(f"saved to {folder / CALIBRATION}; `--decoder relaxed` uses it\n")
    assert f"no_speech stays 0.001 ({folder / FILE}): {len(speech)} clips would give 0." in result.out
    assert read_limits(folder).no_speech == 0.001
    options = options_for(folder).decoding
    assert Thresholds(options.max_entropy, options.min_probability) == chosen.thresholds
    assert json.loads((folder / CALIBRATION).read_text()) == {
        "max_entropy": chosen.thresholds.max_entropy,
        "min_probability": chosen.thresholds.min_probability,
        "wer": chosen.wer,
        "lossless_wer": unlimited.lossless.wer,
        "max_wer_loss": limit,
        "passes": chosen.passes,
        "lossless_passes": unlimited.lossless.passes,
        "manifest": str(manifest),
        "clips": len(speech),
    }
    marked = [line for line in result.out.splitlines() if "<- chosen" in line]
    assert len(marked) == 1 and marked[0].endswith(f"<- chosen (WER increase at most {limit:g} points)")
    assert marked[0].split()[:4] == [
        f"{chosen.thresholds.max_entropy:.2f}",
        f"{chosen.thresholds.min_probability:.2f}",
        f"{100 * chosen.wer:.2f}%",
        f"{chosen.passes:.2f}",
    ]

    # The file agrees with decoding with the pair.
    model, relaxed = load(str(folder)), replace(DecodingOptions("relaxed"), **asdict(chosen.thresholds))
    for options, point in ((DecodingOptions(), unlimited.lossless), (relaxed, chosen)):
        rows = recognize(model, speech, options_for(folder).instruction, options)
        texts = [
            [normalize(text, NORMALIZER) for text in side]
            for side in ([item.text for item in speech], [row.text for row in rows])
        ]
        assert jiwer.wer(*texts) == pytest.approx(point.wer)
        assert sum(row.passes for row in rows) / len(rows) == point.passes


def test_clips_are_cut_as_in_transcribing(nano: Path, speech: list[Utterance], tmp_path: Path) -> None:
    """The longest window is that of the options, which the command reads from the folder of the model."""
    model, manifest = Path(shutil.copytree(nano, tmp_path / "model")), tmp_path / "valid.jsonl"
    write_manifest(manifest, speech)
    window = min(item.duration for item in speech) / 2
    decode, instruction = DecodingOptions(max_window=window), options_for(model).instruction
    write_limits(model, replace(read_limits(model), no_speech=0.9))  # these clips show that it drops speech
    result = calibrate(str(model), str(manifest), 1000.0, instruction, decode, NORMALIZER)
    assert result.no_speech and result.saved_no_speech == result.no_speech.threshold == read_limits(model).no_speech
    rows = recognize(load(str(model)), speech, instruction, decode)
    whole = recognize(load(str(model)), speech, instruction, DecodingOptions())
    assert [row.text for row in rows] != [row.text for row in whole]
    assert result.lossless.wer == score([item.text for item in speech], [row.text for row in rows], NORMALIZER).wer
    assert result.lossless.passes == sum(row.passes for row in rows) / len(rows)
    strict = next(point for point in result.points if point.thresholds == Thresholds(0.0, 0.5))
    assert strict.wer == result.lossless.wer


def test_japanese_is_measured_in_characters_if_a_head_of_tokens_drafts_it(
    nano: Path, speech: list[Utterance], tmp_path: Path
) -> None:
    model, manifest = Path(shutil.copytree(nano, tmp_path / "model")), tmp_path / "valid.jsonl"
    config = json.loads((model / "config.json").read_text())
    size = (config["text_config"]["vocab_size"], config["encoder_config"]["hidden_dim"])
    make_bpe_head(model, torch.zeros(size))
    japanese = [replace(item, language="ja", text="猫が好きです") for item in speech[:2]]
    write_manifest(manifest, japanese)
    instruction = options_for(model).instruction
    result = calibrate(str(model), str(manifest), 1000.0, instruction, DecodingOptions(), NORMALIZER)
    rows = recognize(load(str(model)), japanese, instruction, DecodingOptions())
    assert result.lossless.wer == score([item.text for item in japanese], [row.text for row in rows], "ja-cer@2").wer


def test_choice_of_the_fastest_pair_within_the_limit() -> None:
    """Fewest passes first, then lowest WER; an increase equal to the limit is allowed, despite rounding errors."""
    lossless = Point(None, 0.25, 9.0, 0.2, 0.0)
    slow, worse, better, fast = (
        Point(Thresholds(0.0, 0.5), 0.25, 9.0, 0.2, 0.0),
        Point(Thresholds(0.3, 0.2), 0.253, 5.0, 0.1, 0.2),
        Point(Thresholds(0.7, 0.2), 0.252, 5.0, 0.1, 0.2),
        Point(Thresholds(3.0, 0.2), 0.35, 0.0, 0.01, 1.0),
    )
    assert 100 * (better.wer - lossless.wer) > 0.2  # by a rounding error
    for limit, chosen in ((0.0, slow), (0.1999, slow), (0.2, better), (0.3, better), (9.9, better), (10.0, fast)):
        result = choose([slow, worse, better, fast], lossless, limit)
        assert result.chosen is chosen, limit
        assert result.points == (fast, better, worse, slow) and result.lossless is lossless


def test_the_table_has_the_pairs_with_the_best_trade_off() -> None:
    """Of two pairs with the same WER it has the faster one. Lossless decoding is the last line."""
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
        " entropy  probability      WER   passes    ms/clip   CTC only",
        "    3.00         0.50   30.00%     0.00       10.4       100%",
        "    1.50         0.20   25.00%     1.50       20.0        75%  <- chosen (WER increase at most 13 points)",
        "    0.00         0.10   12.34%     3.25      100.0         0%",
        "             lossless   12.34%     9.00      200.0         0%",
    ]


def test_a_model_that_is_not_a_directory_is_an_error(finetune: Command, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for model in ("ibm-granite/granite-4.0-1b-speech", tmp_path / "file"):
        result = finetune("calibrate", "--model", model, "--manifest", "none.jsonl", "--max-wer-loss", 1)
        assert result == (
            1,
            "",
            f"finetune: {model}: not a directory; the thresholds are saved in the model's folder\n",
        )


def test_a_read_only_folder_is_an_error_before_the_model_is_loaded(finetune: Command, tmp_path: Path) -> None:
    locked = tmp_path / "locked"
    locked.mkdir(mode=0o500)
    if os.access(locked, os.W_OK):
        locked = Path("/proc/sys")  # root can write everywhere else
    if not locked.is_dir() or os.access(locked, os.W_OK):
        pytest.skip("this user can write to every folder")
    result = finetune("calibrate", "--model", locked, "--manifest", "none.jsonl", "--max-wer-loss", 1)
    assert result == (
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
        ("0", 1, "finetune: none.jsonl: cannot be read (No such file or directory)"),  # 0 is valid
    ],
)
def test_invalid_limits_are_errors(finetune: Command, nano: Path, points: str, code: int, message: str) -> None:
    result = finetune("calibrate", "--model", nano, "--manifest", "none.jsonl", "--max-wer-loss", points)
    assert (result.code, result.out) == (code, "") and message in result.err


def test_clips_without_transcripts_are_an_error(
    finetune: Command, nano: Path, tmp_path: Path, speech: list[Utterance]
) -> None:
    model, manifest = Path(shutil.copytree(nano, tmp_path / "model")), tmp_path / "no_transcripts.jsonl"
    for clips, message in (
        (
            [replace(item, text="") for item in speech],
            "no clip has a transcript; calibration needs transcripts to measure WER",
        ),
        (
            [replace(item, task="translate", target_language="de") for item in speech],
            "Translations and Japanese are decoded without the CTC head, so they cannot be used",
        ),
        ([], "the manifest is empty"),
    ):
        write_manifest(manifest, clips)
        result = finetune("calibrate", "--model", model, "--manifest", manifest, "--max-wer-loss", 1)
        assert (result.code, result.out) == (1, "") and result.err.startswith(f"finetune: {manifest}: ")
        assert message in result.err
    assert not (model / CALIBRATION).exists()
