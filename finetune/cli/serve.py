"""`finetune serve`: an HTTP server with OpenAI's transcription API."""

import argparse
import logging
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from finetune.cli.arguments import Subparsers, add_options, chosen_options, parse_bytes
from finetune.core.errors import CheckpointError, DataError, RecipeError
from finetune.core.extras import require
from finetune.core.files import MAX_LIST_BYTES, read_bytes
from finetune.core.serve_options import API_KEYS, ServeOptions, parse_adapters
from finetune.model.model_source import check_source

if TYPE_CHECKING:
    from finetune.serving.scheduler import Scheduler

TO_STOP = 1.0  # seconds in which a batch can still end
# oneDNN keeps the code that it makes for each shape of a batch, 1,024 pieces by default. Clips of all lengths give ever
# new shapes. The layers of one batch share the code, so little of it is enough.
PRIMITIVES = ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "64")


def add_parser(subparsers: Subparsers) -> None:
    text = "serve a model over HTTP, with OpenAI's API for transcriptions"
    parser = subparsers.add_parser(
        "serve", help=text, description=text, epilog="example: finetune serve runs/quickstart/export --port 8000"
    )
    default = ServeOptions()
    parser.add_argument("model", metavar="MODEL", help="exported folder, base model or hub name")
    parser.add_argument(
        "--name", metavar="NAME", help="name of the model in requests (default: that of its folder or run)"
    )
    parser.add_argument(
        "--adapter",
        action="append",
        default=[],
        metavar="NAME=DIR",
        help="an adapter of MODEL, as a further model; can be repeated",
    )
    add_options(parser, default, ("host", "ADDRESS", "address to listen on"), ("port", "N", "port; 0 is any free one"))
    parser.add_argument(
        "--api-keys", metavar="FILE", help=f"keys that requests must have, one on a line; or the variable {API_KEYS}"
    )
    parser.add_argument("--max-upload", type=parse_bytes, metavar="SIZE", help="largest request (default: 200M)")
    add_options(
        parser,
        default,
        ("max-audio", "S", "seconds of audio in a request"),
        ("max-requests", "N", "requests at a time; others get status 429"),
        ("deadline", "S", "seconds in which a request must be finished"),
        ("upload-pause", "S", "seconds without data after which an upload is given up"),
        ("upload-rate", "N", "lowest mean bytes per second of a longer upload"),
        ("drain", "S", "seconds that started requests have after SIGTERM"),
        ("batch-seconds", "S", "padded audio in a batch"),
        ("memory", "SHARE", "of the free memory, for adapters with whole parts"),
    )
    parser.add_argument(
        "--allow-origin",
        action="append",
        default=[],
        metavar="URL",
        help="accept requests of web pages from here; can be repeated",
    )
    parser.add_argument("--corrections", metavar="DIR", help="save corrected transcripts here")
    parser.add_argument("--log-text", action="store_true", help="log transcripts")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Serves until a signal stops it.

    Raises:
        RecipeError: a value out of range, an address that cannot be used.
        MissingExtraError: the extra [serve] is not installed.
        DataError: the file of keys cannot be read.
        ModelError, CheckpointError: a model or an adapter cannot be loaded.
    """
    args.api_keys, args.allow_origin = _api_keys(args.api_keys), tuple(args.allow_origin)
    options = chosen_options(args, ServeOptions)
    for module in ("fastapi", "uvicorn", "python_multipart", "prometheus_client"):
        require(module, extra="serve")
    folders = parse_adapters(args.adapter)
    os.environ.setdefault(*PRIMITIVES)  # read when torch makes the first one
    check_source(args.model)
    _check_before_loading(options, folders)

    from finetune.serving.adapters import with_adapters
    from finetune.serving.app import create_app
    from finetune.serving.models import Models, load_base
    from finetune.serving.server import serve

    logging.getLogger(__name__).info("loading %s ...", args.model)
    models = Models(with_adapters(load_base(args.model, args.name), folders, options.memory))
    app = create_app(models, options)
    code = serve(app, options)
    _leave_batch(app.state.scheduler, code)
    return code


def _check_before_loading(options: ServeOptions, folders: dict[str, Path]) -> None:
    """Finds before the model is loaded, which can take minutes, what would fail after it. Raises as `run`."""
    from finetune.serving.correction_store import CorrectionStore
    from finetune.serving.server import listen

    for name, folder in folders.items():
        if not folder.is_dir():
            raise CheckpointError(f"--adapter {name}={folder}: no such folder")
    if options.corrections:
        CorrectionStore(Path(options.corrections))
    listen(options).close()


def _leave_batch(scheduler: "Scheduler", code: int) -> None:
    """Ends the process at once if a batch is still computed: Python would end its thread inside torch, which aborts."""
    if scheduler.alive:
        scheduler.join(TO_STOP)
    if scheduler.alive:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _api_keys(path: str | None) -> tuple[str, ...]:
    """The keys of a file or, without one, of the environment."""
    if path is None:
        return tuple(key.strip() for key in os.environ.get(API_KEYS, "").split(",") if key.strip())
    try:
        text = read_bytes(path, MAX_LIST_BYTES).decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: the API keys cannot be read ({error})") from error
    keys = tuple(line.strip() for line in text.splitlines() if line.strip())
    if not keys:
        raise RecipeError(f"{path}: has no API key; write one on each line")
    return keys
