"""`finetune verify`: runs an export in another inference engine and compares its texts with those of this toolkit."""

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from finetune.cli.arguments import Subparsers, add_gguf_dtype
from finetune.core.errors import DataError, RecipeError
from finetune.core.options import DecodingOptions
from finetune.core.terminal import visible
from finetune.core.wording import count
from finetune.exporting.engines.registry import ENGINES, gguf_format

if TYPE_CHECKING:
    from finetune.core.run_dir import RunDir
    from finetune.exporting.engines.verify import Verification

DESCRIPTION = """Transcribes clips with this toolkit and with another inference engine, and compares the texts.

Both get the same samples and the same prompt, and decode greedily in float32, so the texts must be equal. An engine has
an environment of its own, which scripts/engines/setup makes; docs/engines.md has a table of results. For llamacpp and
crispasr, a merged model is written as GGUF files for the comparison. An adapter (--engine peft, vllm-lora) is compared
with the trained weights of its run; if it changes no text of the base model, the comparison shows nothing and fails.

Exit codes: 0 all texts are equal, 1 a text differs or the engine failed, 2 wrong usage."""
SHOWN = 5  # differences
LONGEST = 500  # characters of a shown text
GGUF_DTYPE = "F32"  # so that texts are equal
TIMEOUT = 3600  # seconds
MAX_NEW_TOKENS = DecodingOptions().max_new_tokens


def add_parser(subparsers: Subparsers) -> None:
    parser = subparsers.add_parser(
        "verify",
        help="run an export in another engine, such as vLLM, llama.cpp, CrispASR or mlx-audio, and compare the texts",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description=DESCRIPTION,
        epilog="example: finetune verify runs/quickstart/export --engine vllm",
    )
    parser.add_argument("export", type=Path, metavar="EXPORT", help="a folder written by finetune export")
    parser.add_argument("--engine", required=True, choices=ENGINES)
    parser.add_argument(
        "--clips", type=Path, metavar="MANIFEST", help="clips with references; the default is the test set of the run"
    )
    parser.add_argument("--limit", type=_positive, metavar="N", help="use the first N clips only")
    parser.add_argument(
        "--run",
        type=Path,
        metavar="DIR",
        dest="run_dir",
        help="the run directory of an adapter, GGUF or quantized folder; the default is the one that holds EXPORT",
    )
    parser.add_argument("--python", type=Path, metavar="PATH", help="a Python that has the engine")
    add_gguf_dtype(parser, GGUF_DTYPE)
    parser.add_argument(
        "--timeout", type=_positive, metavar="SECONDS", default=TIMEOUT, help="for the engine (default: %(default)s)"
    )
    parser.add_argument(
        "--max-new-tokens",
        type=_positive,
        metavar="N",
        default=MAX_NEW_TOKENS,
        help="tokens per clip (default: %(default)s)",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the result to this file")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Compares and prints. Returns 1 if a text differs, or if an adapter changes no text.

    Raises:
        RecipeError: --gguf-dtype for an engine that reads no GGUF files, or for GGUF files.
        DataError: the file of --json cannot be written.
        DataError, ModelError, CheckpointError: see `exporting.engines.verify.verify`.
    """
    from finetune.core.files import check_output_file, write_json
    from finetune.core.run_dir import RunDir
    from finetune.data.manifest import read_manifest
    from finetune.evaluation.utterances import read_utterances
    from finetune.exporting.engine_checks import read_checks
    from finetune.exporting.engines.environment import python_of

    if args.json:
        check_output_file(args.json)
    earlier = read_checks(args.export).get(args.engine)
    if args.gguf_dtype and not gguf_format(args.engine):
        raise RecipeError(f"--gguf-dtype: {args.engine} reads no GGUF files; leave it out")
    if args.gguf_dtype and any(args.export.glob("*.gguf")):
        raise RecipeError(f"--gguf-dtype: {args.export} has GGUF files, which are used as they are; leave it out")
    python = python_of(args.engine, args.python)
    run_dir = RunDir(args.run_dir) if args.run_dir else None
    utterances = read_utterances(args.clips) if args.clips else read_manifest(_test_set(args.export, run_dir))

    from finetune.exporting.engines.verify import verify

    dtype = args.gguf_dtype or GGUF_DTYPE
    chosen = utterances[: args.limit]
    result = verify(args.export, args.engine, python, chosen, dtype, args.timeout, run_dir, args.max_new_tokens)
    print(visible("\n".join(format_verification(result, decoding_note(args.export)))))
    if args.json:
        write_json(args.json, asdict(result))
    if args.limit and earlier and earlier.clips > result.clips:
        print(visible(f"not recorded in {args.export}, which has the counts of {count(earlier.clips, 'clip')}"))
    else:
        try:
            _keep_counts(args.export, args.engine, result)
        except OSError as error:  # such as a read-only folder; the comparison holds all the same
            print(visible(f"not recorded in {args.export} ({error.strerror or error})"))
    return int(bool(result.differences) or result.adapted == 0)


def check_engine(engine: str, format_name: str) -> None:
    """Checks that an engine reads a format and is installed.

    Raises:
        RecipeError: it does not read it.
        ModelError: it is not installed.
    """
    from finetune.exporting.engines.environment import python_of

    if format_name not in ENGINES[engine].reads:
        fitting = ", ".join(name for name, spec in ENGINES.items() if format_name in spec.reads)
        raise RecipeError(f"--verify {engine}: it does not read --format {format_name}; use one of {fitting}")
    python_of(engine)


def verify_export(folder: Path, engine: str) -> int:
    """`finetune verify FOLDER --engine ENGINE`. Returns its exit code."""
    options = {"clips": None, "limit": None, "python": None, "gguf_dtype": None, "json": None, "run_dir": None}
    return run(
        argparse.Namespace(export=folder, engine=engine, timeout=TIMEOUT, max_new_tokens=MAX_NEW_TOKENS, **options)
    )


def decoding_note(export: Path) -> str:
    """How a comparison decodes, if its WER is not that of the recipe's decoding; else ""."""
    from finetune.core.model_limits import ADAPTATION
    from finetune.exporting.adaptation import Adaptation

    if not (export / ADAPTATION).is_file():  # not an export, but a base model
        return ""
    decode = Adaptation.read(export).recipe.decode
    parts = [f"not {decode.decoder}"] if decode.decoder in ("beam", "relaxed") else []
    parts += ["without decode.terms"] if decode.terms else []
    return f" ({', '.join(['greedy', *parts])}; the summary of the run has the WER of its recipe)" if parts else ""


def format_verification(result: "Verification", note: str) -> list[str]:
    """One line with the counts, one with time and memory, and the first differences.

    Args:
        result: the comparison.
        note: follows the WER.
    """
    versions = ", ".join(f"{name} {version}" for name, version in result.versions.items())
    lines = [
        f"{result.engine} ({versions}), format {result.format}: {result.equal} of {count(result.clips, 'text')} equal; "
        f"WER {100 * result.engine_wer:.1f} %, here {100 * result.toolkit_wer:.1f} %{note}",
        f"{result.engine_seconds:.1f} s for {result.audio_seconds:.1f} s of audio (RTFx "
        f"{result.audio_seconds / max(result.engine_seconds, 1e-3):.1f}), {result.load_seconds:.1f} s to load, "
        f"{result.peak_memory_bytes / 1e6:.0f} MB",
    ]
    if result.adapted == 0:
        lines.append(
            "The adapter changes no text of the base model on these clips, so they do not show that the engine uses "
            "it; compare other clips (--clips) or more (--limit)"
        )
    elif result.adapted is not None:
        lines.append(f"The adapter changes {result.adapted} of {count(result.clips, 'text')} of the base model")
    for item in result.differences[:SHOWN]:
        lines += [f"{item.id}:", f"  here   {_quoted(item.toolkit)}", f"  engine {_quoted(item.engine)}"]
    if len(result.differences) > SHOWN:
        lines.append(f"and {count(len(result.differences) - SHOWN, 'more clip')} with different texts")
    return lines


def _quoted(text: str) -> str:
    """A text in quotation marks, shortened."""
    return json.dumps(text if len(text) <= LONGEST else f"{text[:LONGEST]}... ({len(text)} characters)")


def _keep_counts(export: Path, engine: str, result: "Verification") -> None:
    """Records the counts in an export, and in its model card."""
    from finetune.core.model_limits import ADAPTATION
    from finetune.exporting.adaptation import Adaptation
    from finetune.exporting.card.usage import update_engines
    from finetune.exporting.card.write import export_profile
    from finetune.exporting.engine_checks import EngineCheck, add_check

    if not (export / ADAPTATION).is_file():  # not an export, but a base model
        return
    adaptation = Adaptation.read(export)
    recipe = adaptation.recipe
    check = EngineCheck(
        versions=result.versions,
        format=result.format,
        clips=result.clips,
        equal=result.equal,
        wer=result.engine_wer,
        toolkit_wer=result.toolkit_wer,
    )
    checks = add_check(export, engine, check)
    profile = export_profile(adaptation, export)
    decode = recipe.decode
    if update_engines(export, checks, recipe.model.instruction, decode.max_new_tokens, profile, decode):
        print(visible(f"recorded in {export / 'README.md'}"))


def _test_set(export: Path, run_dir: "RunDir | None") -> Path:
    """The test set of a run directory, by default of the one that holds the export."""
    from finetune.core.run_dir import RunDir

    path = (run_dir or RunDir(export.resolve().parent)).manifest("test")
    if not path.is_file():
        if not run_dir and RunDir(export).manifest("test").is_file():
            raise DataError(f"{export}: a run directory; give an export in it, such as {RunDir(export).export}")
        where = f"{run_dir.root} has no test set" if run_dir else f"{export} is not in a run directory with a test set"
        raise DataError(f"{where}; name clips with --clips")
    return path


def _positive(text: str) -> int:
    """A whole number of 1 or more. Raises ArgumentTypeError for another text."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of 1 or more")
    return int(text)
