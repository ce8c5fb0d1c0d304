"""`finetune calibrate`: finds the thresholds of relaxed decoding and of the no-speech guard for a model."""

import argparse
import math
import os
from pathlib import Path

from finetune.cli.arguments import Subparsers
from finetune.core.errors import DataError, RecipeError
from finetune.model.model_source import check_source


def add_parser(subparsers: Subparsers) -> None:
    text = "find the thresholds of relaxed decoding and of the no-speech guard, and save them in the model's folder"
    parser = subparsers.add_parser(
        "calibrate",
        help=text,
        description=text,
        epilog="example: finetune calibrate --model runs/quickstart/export --manifest valid.jsonl --max-wer-loss 0.2",
    )
    parser.add_argument("--model", required=True, metavar="DIR", help="exported folder or local base model")
    parser.add_argument(
        "--manifest", required=True, metavar="FILE", help="clips with transcripts; do not use the test set"
    )
    parser.add_argument(
        "--max-wer-loss",
        required=True,
        type=float,
        metavar="POINTS",
        help="largest increase of WER over lossless decoding, in percentage points",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Calibrates and prints the measured thresholds.

    Raises:
        DataError: the model is not a writable folder, or the manifest has no clip with a transcript.
        RecipeError: --max-wer-loss is negative or not a number.
        ModelError: the model cannot be loaded.
    """
    if not Path(args.model).is_dir():
        raise DataError(f"{args.model}: not a directory; the thresholds are saved in the model's folder")
    if not os.access(args.model, os.W_OK):
        raise DataError(
            f"{args.model}: not writable; the thresholds are saved in the model's folder, so calibrate a copy of it"
        )
    if not 0 <= args.max_wer_loss < math.inf:
        raise RecipeError(f"--max-wer-loss {args.max_wer_loss:g}: must be 0 or more percentage points of WER")
    check_source(args.model)

    from finetune.core.config import EvaluateSection
    from finetune.core.model_limits import FILE as LIMITS
    from finetune.core.wording import count
    from finetune.evaluation.calibrate import calibrate, frontier_table
    from finetune.evaluation.no_speech import MAX_CLIPS
    from finetune.inference.saved_options import CALIBRATION, options_for

    options = options_for(args.model)  # those of `finetune transcribe`, also the longest window and the terms
    result = calibrate(
        args.model,
        args.manifest,
        args.max_wer_loss,
        options.instruction,
        options.decoding,
        EvaluateSection().normalizer,
    )
    print("\n".join(frontier_table(result)))
    guard, limits = result.no_speech, Path(args.model) / LIMITS
    if guard and guard.threshold > result.saved_no_speech:
        print(
            f"no_speech stays {result.saved_no_speech:g} ({limits}): {count(guard.clips, 'clip')} would give "
            f"{guard.threshold:g}, but are too few; calibrate with {MAX_CLIPS} clips of several speakers"
        )
    elif guard and guard.clips:
        print(
            f"no_speech {guard.threshold:g}, which rejects {100 * guard.rejected:.0f} % of the clips without speech, "
            f"saved to {limits}"
        )
        if guard.clips < MAX_CLIPS:
            print(
                f"no_speech comes from only {count(guard.clips, 'clip')}, so it can drop words of other voices: "
                f"calibrate with {MAX_CLIPS} clips of several speakers, or lower it with --no-speech"
            )
    print(f"saved to {Path(args.model) / CALIBRATION}; `--decoder relaxed` uses it")
    return 0
