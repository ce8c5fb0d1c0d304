"""`finetune segment`: cuts long recordings with a plain transcript into clips."""

import argparse
import logging
from pathlib import Path
from typing import TYPE_CHECKING

from finetune.cli.arguments import Subparsers, add_options, chosen_options
from finetune.core.array_job import parse_shard
from finetune.core.errors import DataError
from finetune.core.files import output_folder
from finetune.core.options import SegmentOptions
from finetune.core.terminal import visible
from finetune.core.wording import count, verb
from finetune.model.model_source import check_source

log = logging.getLogger(__name__)

if TYPE_CHECKING:
    from finetune.curation.segment_corpus import SegmentSummary


def add_parser(subparsers: Subparsers) -> None:
    text = "cut long recordings with a plain transcript into clips, by forced alignment with the CTC head of a model"
    parser = subparsers.add_parser(
        "segment",
        help=text,
        description=f"{text[0].upper()}{text[1:]}. Words that are not in the audio, speech that is not in the text, "
        "and doubtful places are set aside with the reason (docs/segment.md).",
        epilog="example: finetune segment runs/my/export talk.mp3 --text talk.txt -o segments",
    )
    parser.add_argument("model", metavar="MODEL", help="exported folder, base model or hub name")
    parser.add_argument(
        "source", metavar="SOURCE", help="an audio file with --text, or a corpus whose rows have the full text"
    )
    parser.add_argument("--text", metavar="FILE", help="the transcript of an audio file, without times")
    parser.add_argument("-o", "--output", required=True, type=Path, metavar="DIR", help="folder for the results")
    defaults = SegmentOptions()
    add_options(
        parser,
        defaults,
        ("min-duration", "S", "shortest clip where the recording allows it"),
        ("max-duration", "S", "longest clip"),
        ("shortest", "S", "shortest clip between two places that no clip can have"),
        ("min-score", "P", "a word with a lower score, 0 to 1, is set aside"),
        ("padding", "S", "pause that a clip keeps at each end"),
        ("language", "CODE", "language of numbers, for rows without one"),
    )
    parser.add_argument("--cut", action="store_true", help="write each clip as a FLAC file, 16 kHz mono")
    parser.add_argument(
        "--shard", metavar="N/COUNT", help="do the part of job N of an array of COUNT jobs; see docs/cluster.md"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace results that exist")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Segments and prints a summary. Returns 1 if a recording is unusable, or no clip was kept.

    Raises:
        RecipeError: an option is out of range.
        DataError: the source cannot be read, or results exist already.
        ModelError: the model cannot be loaded.
    """
    options = chosen_options(args, SegmentOptions)
    shard = None if args.shard is None else parse_shard(args.shard)
    if args.output.exists() and not args.output.is_dir():
        raise DataError(f"{args.output}: this is a file; name a folder for -o")
    with output_folder(args.output):
        check_source(args.model)

    from finetune.curation.recordings import read_recordings
    from finetune.curation.segment_corpus import SegmentFiles, segment_recordings
    from finetune.data.number_words import is_supported
    from finetune.inference.transcribe import load

    files = SegmentFiles.of(args.output, shard, args.cut)
    if not is_supported(options.language):
        log.warning("--language %s: its numbers cannot be written in words, so they are not aligned", options.language)
    existing = [path for path in (files.clips, files.set_aside, files.summary) if path.exists()]
    if existing and not args.overwrite:
        raise DataError(f"{existing[0]}: exists already; choose another folder, or add --overwrite to replace it")
    with output_folder(args.output):
        recordings = read_recordings(args.source, args.text, args.output / "media")
        if shard:
            recordings = [recording for number, recording in enumerate(recordings) if shard.has(number)]
        summary = segment_recordings(load(args.model), recordings, options, files)
    print(visible("\n".join(_lines(summary, options))))
    print(visible(f"clips: {files.clips}\nset aside: {files.set_aside}"))
    return 1 if summary.unusable or not summary.clips else 0


def _lines(summary: "SegmentSummary", options: SegmentOptions) -> list[str]:
    """The summary as text."""

    def percentage(part: float, total: float) -> str:
        return f"{100 * part / total:.1f} %" if total else "none"

    lines = [
        f"{count(summary.clips, 'clip')}, {summary.clip_seconds / 60:.1f} of {summary.seconds / 60:.1f} minutes, "
        f"{summary.clip_words} of {count(summary.words, 'word')} ({percentage(summary.clip_words, summary.words)})"
    ]
    if summary.short_clips:
        lines.append(
            f"{count(summary.short_clips, 'clip')} {verb(summary.short_clips, 'is', 'are')} shorter than "
            f"{options.min_duration:g} s"
        )
    lines += [f"set aside: {count(number, 'word')}: {reason}" for reason, number in summary.set_aside_words.items()]
    if summary.seconds_without_text:
        lines.append(f"set aside: {summary.seconds_without_text:.0f} s of speech, or of sound like it, without text")
    if summary.unusable:
        lines.append(
            f"{summary.unusable} of {count(summary.recordings, 'recording')} have no words or no readable audio"
        )
    elif not summary.clips:
        lines.append(
            "no clip was kept: does the text belong to the audio, and does the model know the language and the voice? "
            "A model adapted to a few minutes of this speech aligns better; --min-score 0.02 keeps more"
        )
    return lines
