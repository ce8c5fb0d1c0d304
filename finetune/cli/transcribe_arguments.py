"""Arguments of `finetune transcribe`: the audio files and the options of a call. An export contains a copy of it."""

import argparse
import os
import sys

from finetune.core.errors import DataError, RecipeError
from finetune.core.files import read_lines
from finetune.core.keyword_list import parse_keywords, term_list
from finetune.core.languages import SPEECH_LANGUAGES, TRANSLATION_TARGETS
from finetune.core.options import FORMATS, DecodingOptions, TranscribeOptions, choices, override


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds all arguments except --model. An argument that is not given keeps the option of the model."""
    parser.add_argument(
        "files", nargs="*", metavar="FILE", help="audio file or URL; - reads a list of files from stdin"
    )
    parser.add_argument("--files-from", metavar="LIST", help="text file with one path of an audio file per line")
    parser.add_argument(
        "--format", choices=FORMATS, help=f"{FORMATS[0]} (default), json (one object per line), srt, vtt, or tsv (ms)"
    )
    parser.add_argument("--output", metavar="DIR", help="write one file per input into DIR instead of printing")
    parser.add_argument("--overwrite", action="store_true", help="let --output replace files that exist")
    parser.add_argument(
        "--channel",
        metavar="C",
        help="channel of a file with several: mix (average, default), left, right, a number from 0, or each (one "
        "transcript a channel)",
    )
    parser.add_argument(
        "--language",
        metavar="CODE",
        help=f"spoken language: {' '.join(SPEECH_LANGUAGES)}. The model detects it; the code is written into json, and "
        "Japanese is decoded without a draft",
    )
    parser.add_argument("--translate-to", metavar="CODE", help=f"translate into: {' '.join(TRANSLATION_TARGETS)}")
    parser.add_argument("--keywords", metavar="A,B", help="expected words")
    parser.add_argument("--keywords-file", metavar="LIST", help="text file, one keyword per line")
    parser.add_argument(
        "--keyword-method",
        choices=[name for name in choices(DecodingOptions, "keyword_method") if name != "auto"],
        help="put keywords into the prompt, which the model must know, or write them where the CTC head hears them "
        "(ctc), or both; the default is ctc for a model that states that it does not know such prompts, else prompt",
    )
    parser.add_argument(
        "--no-terms", action="store_true", help="do not use the terms of the model (decode.terms of its recipe)"
    )
    _add_decoding_arguments(parser)
    parser.add_argument(
        "--vad", choices=choices(TranscribeOptions, "vad"), help="find pauses by sound level (default) or silero-vad"
    )
    parser.add_argument(
        "--max-window",
        type=float,
        metavar="S",
        help="longest window of audio; the default is the longest speech that the model was trained on, at most 30 s",
    )
    parser.add_argument(
        "--no-speech",
        type=float,
        metavar="P",
        help="no text for a window if the CTC head is less certain than this (0 to 1) that it has speech; 0 is off",
    )


def _add_decoding_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--decoder",
        choices=choices(DecodingOptions, "decoder"),
        help="speculative drafts with the CTC head and writes the same text as greedy; relaxed is faster and less "
        "accurate; beam search is slower and more accurate",
    )
    parser.add_argument("--num-beams", type=int, metavar="N", help="texts that beam search keeps at each token")
    parser.add_argument("--ctc-weight", type=float, metavar="W", help="weight of the CTC head in beam search")
    parser.add_argument("--max-entropy", type=float, metavar="NATS", help="threshold of relaxed decoding")
    parser.add_argument("--min-probability", type=float, metavar="P", help="threshold of relaxed decoding")
    parser.add_argument("--batch-seconds", type=float, metavar="S", help="padded audio in a batch")
    parser.add_argument("--max-new-tokens", type=int, metavar="N", help="tokens per window of audio")
    parser.add_argument(
        "--cuda-graphs",
        action=argparse.BooleanOptionalAction,
        help="replay short passes of the language model as CUDA graphs, on a GPU",
    )


def options_from(args: argparse.Namespace, saved: TranscribeOptions) -> TranscribeOptions:
    """The options of a call: those of the command line, otherwise those of the model.

    Raises:
        RecipeError: a value out of range, an unknown language, a bad keyword, an option of another decoder.
        DataError: the list of keywords cannot be read.
    """
    options = override(
        saved,
        channel=args.channel,
        language=args.language,
        translate_to=args.translate_to,
        keywords=[*parse_keywords(args.keywords or ""), *_keywords(args.keywords_file)],
        terms=() if args.no_terms else None,
        **{
            name: getattr(args, name)
            for name in (
                "decoder",
                "num_beams",
                "ctc_weight",
                "keyword_method",
                "max_entropy",
                "min_probability",
                "vad",
                "max_window",
                "no_speech",
                "batch_seconds",
                "max_new_tokens",
                "cuda_graphs",
            )
        },
    )
    decoder = options.decoding.decoder
    if decoder != "relaxed" and {args.max_entropy, args.min_probability} != {None}:
        raise RecipeError("--max-entropy and --min-probability need --decoder relaxed")
    if decoder != "beam" and {args.num_beams, args.ctc_weight} != {None}:
        raise RecipeError("--num-beams and --ctc-weight need --decoder beam")
    return options


def audio_paths(args: argparse.Namespace) -> list[str]:
    """The audio files of the command line and of its lists; one that is there twice, also as `./NAME`, once."""
    paths = list[str]()
    for name in args.files:
        paths += _lines(name) if name == "-" else [name]
    if args.files_from:
        paths += _lines(args.files_from)
    if not paths:
        raise RecipeError("no audio files; give files, or - to read a list of files from standard input")
    unique = {os.path.abspath(path): path for path in reversed(paths)}
    return [path for path in dict.fromkeys(paths) if unique[os.path.abspath(path)] == path]


def _keywords(path: str | None) -> list[str]:
    """The keywords of a file; `-` is standard input.

    Raises:
        DataError: the file cannot be read, or has no keyword.
    """
    if path is None:
        return []
    lines = _lines(path) if path == "-" else [line for _, line in term_list(path)]
    if not lines:
        raise DataError(f"{path}: is empty; write one keyword per line, or leave out --keywords-file")
    return lines


def _lines(path: str | None) -> list[str]:
    """The non-empty lines of a text file; `-` is standard input."""
    if path is None:
        return []
    if path != "-":
        return read_lines(path)
    try:
        text = sys.stdin.read()
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not a list of lines in UTF-8 ({error.reason})") from error
    if "\0" in text:  # no path has it
        hint = "; - reads names of files, not audio: write the audio into a file" if path == "-" else ""
        raise DataError(f"{path}: not a list of lines in UTF-8 (it has zero bytes){hint}")
    return [line.strip() for line in text.removeprefix("\ufeff").split("\n") if line.strip()]
