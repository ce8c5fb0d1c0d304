"""`finetune synthesize`: training clips for terms or sentences that nobody has recorded, by synthetic voices."""

import argparse
import logging
from pathlib import Path
from typing import TYPE_CHECKING

from finetune.cli.arguments import Subparsers, add_options, chosen_options
from finetune.core.errors import ModelError, RecipeError
from finetune.core.options import SynthesisOptions, choices
from finetune.core.terminal import visible
from finetune.core.wording import count
from finetune.model.model_source import check_source

log = logging.getLogger(__name__)

if TYPE_CHECKING:
    from finetune.curation.spoken_texts import Sentence
    from finetune.curation.synthesize import SynthesisFiles, SynthesisSummary

VOICES = """voices:
  espeak-ng:en-us+f3     a voice of espeak-ng, with a variant
  flite:slt              a voice of flite, or a .flitevox file
  piper:FILE.onnx        a voice of Piper; FILE.onnx#SPEAKER for one of several speakers
  kokoro:FOLDER#af_heart a voice of Kokoro; the folder has the model and the voices
  openai:MODEL#VOICE     an OpenAI-compatible server at OPENAI_BASE_URL, with OPENAI_API_KEY
  command:VOICE          any program, by --command

example: finetune synthesize terms.txt -o clips/terms --voice espeak-ng:en-us+f3 --voice piper:en_US-joe-medium.onnx"""


def add_parser(subparsers: Subparsers) -> None:
    text = "speak terms or sentences with synthetic voices, as training clips"
    parser = subparsers.add_parser(
        "synthesize",
        help=text,
        description=f"{text[0].upper()}{text[1:]}. A model transcribes each clip; clips whose general words it "
        "does not understand are set aside (docs/synthesize.md).",
        epilog=VOICES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    defaults = SynthesisOptions()
    parser.add_argument("source", metavar="SOURCE", help="a text file with one term or sentence on each line")
    parser.add_argument("-o", "--output", required=True, type=Path, metavar="DIR", help="folder for the results")
    parser.add_argument(
        "--voice", action="append", default=[], metavar="ENGINE:VOICE", help="a voice, see below; can be repeated"
    )
    parser.add_argument(
        "--command", metavar="TEMPLATE", default="", dest="template", help="a program: 'say -v {voice} -o {out} {text}'"
    )
    parser.add_argument(
        "--kind",
        choices=choices(SynthesisOptions, "kind"),
        help=f"what the lines of SOURCE are (default: {defaults.kind})",
    )
    parser.add_argument("--terms", metavar="FILE", help="the terms in the sentences of SOURCE, with --kind sentences")
    written = parser.add_mutually_exclusive_group()
    written.add_argument("--templates", metavar="FILE", help="sentences with {term}, instead of the built-in ones")
    written.add_argument("--writer", metavar="openai:MODEL", help="a text model that writes the sentences")
    parser.add_argument("--lexicon", metavar="FILE", help="pronunciations: term, tab, respelling or /IPA/")
    add_options(
        parser,
        defaults,
        ("per-term", "N", "sentences for each term"),
        ("voices-per-sentence", "N", "voices that speak each sentence"),
        ("speed", "F", "largest change of the speaking rate, as a fraction"),
        ("pitch", "F", "largest change of the pitch, as a fraction"),
        ("language", "CODE", "language of the sentences"),
        ("model", "MODEL", "exported folder, base model or hub name that checks the clips"),
        ("max-general-errors", "F", "largest fraction of general words that the model may miss"),
        ("seed", "N", "seed of sentences, speaking rate and pitch"),
    )
    parser.add_argument("--no-check", action="store_true", help="do not transcribe the clips")
    parser.add_argument("--workers", type=int, default=0, metavar="N", help="clips at a time (default: one a core)")
    parser.add_argument("--overwrite", action="store_true", help="replace results of other arguments")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Synthesizes and prints a summary. Returns 1 if no clip was kept.

    Raises:
        RecipeError: an option is wrong.
        DataError: a text file cannot be used, or the folder cannot be written.
        VoiceError: a voice is not installed, or failed.
        ModelError: the model or a server cannot be used.
    """
    options = chosen_options(args, SynthesisOptions)
    _check_arguments(args, options)
    if not args.no_check:
        try:
            check_source(options.model)
        except ModelError as error:
            hint = "--model names the model that checks the clips, --no-check keeps all clips without it"
            raise ModelError(f"{error}\n{hint}") from error

    from finetune.curation.lexicon import read_lexicon
    from finetune.curation.synthesis_plan import plan_clips
    from finetune.curation.synthesize import (
        SynthesisFiles,
        prepare_folder,
        replace_results,
        synthesize_clips,
        write_results,
    )
    from finetune.curation.voices.registry import check_voices, other_languages, parse_voices
    from finetune.inference.transcribe import load

    files, lexicon, voices = (
        SynthesisFiles(args.output),
        read_lexicon(args.lexicon),
        parse_voices(args.voice, args.template),
    )
    check_voices(voices)
    for warning in other_languages(voices, options.language):
        log.warning(warning)
    prepare_folder(files)
    plan = plan_clips(_sentences(args, options, files), voices, lexicon, options)
    replace_results(files, plan, args.overwrite)
    model = None if args.no_check else load(options.model)
    synthesize_clips(plan, files, args.workers)
    summary = write_results(plan, files, model, options)
    print(visible("\n".join(_lines(summary))))
    print(visible(f"clips: {files.clips}" + f"\nset aside: {files.set_aside}" * bool(summary.set_aside)))
    return 0 if summary.clips else 1


def _check_arguments(args: argparse.Namespace, options: SynthesisOptions) -> None:
    """Raises RecipeError for arguments that exclude each other."""
    if options.kind == "terms" and args.terms:
        raise RecipeError("--terms: SOURCE has the terms already; for sentences add --kind sentences")
    if options.kind == "sentences" and (args.templates or args.writer or args.per_term):
        raise RecipeError("--templates, --writer and --per-term need terms, not --kind sentences")
    if args.template and not any(voice.startswith("command:") for voice in args.voice):
        raise RecipeError("--command: no voice uses it; add --voice command:VOICE")
    if args.workers < 0:
        raise RecipeError(f"--workers: must be 0 or more, got {args.workers}")


def _sentences(args: argparse.Namespace, options: SynthesisOptions, files: "SynthesisFiles") -> "list[Sentence]":
    from finetune.curation import spoken_texts as texts

    if options.kind == "sentences":
        return texts.read_sentences(args.source, texts.read_term_list(args.terms) if args.terms else [])
    terms = texts.read_term_list(args.source)
    if args.writer:
        from finetune.core.extras import require

        require("httpx", extra="compare")
        from finetune.curation.sentence_writer import write_sentences

        return texts.term_sentences(
            write_sentences(args.writer, terms, options.per_term, options.language, files.sentences)
        )
    templates = texts.read_templates(args.templates, options.language)
    if len(templates) < options.per_term:
        log.warning("there are %d templates, so each term has %d sentences", len(templates), len(templates))
    return texts.term_sentences(texts.fill_templates(terms, templates, options.per_term, options.seed))


def _lines(summary: "SynthesisSummary") -> list[str]:
    """The summary as text."""
    lines = [
        f"{count(summary.clips, 'clip')}, {summary.seconds / 60:.1f} minutes, "
        f"{count(len(summary.clips_by_voice), 'voice')}"
    ]
    if summary.terms:
        lines.append(
            f"{count(summary.terms, 'term')} with {count(summary.fewest_clips_of_a_term, 'clip')} or more each"
        )
    lines += [f"{count:6d}  {voice}" for voice, count in sorted(summary.clips_by_voice.items())]
    lines += [f"set aside: {count(number, 'clip')}: {reason}" for reason, number in summary.set_aside.items()]
    if not summary.clips:
        lines.append(
            "no clip was kept: does the model know the language, and are the voices intelligible? --no-check keeps all"
        )
    return lines
