"""The systems of a comparison: parses their names, and gets the hypotheses of each for the clips."""

import logging
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from finetune.core.errors import DataError, ModelError, RecipeError
from finetune.core.extras import require
from finetune.core.model_limits import read_limits
from finetune.core.options import DecodingOptions
from finetune.core.run_dir import RunDir
from finetune.core.wording import count
from finetune.data.manifest import Utterance
from finetune.evaluation.hypothesis_files import ClipNames, HypothesisRow, read_hypotheses
from finetune.inference.saved_options import clip_options
from finetune.metrics.results import SYSTEMS
from finetune.metrics.sclite import Segment, labels_of
from finetune.metrics.scorecard import SystemOutput
from finetune.model.model_source import model_suggestion

log = logging.getLogger(__name__)

RECIPES = (".yaml", ".yml")
_HUB_NAME = re.compile(r"\w[\w.-]*/\w[\w.-]*(?<!\.jsonl)(?<!\.json)(?<!\.csv)(?<!\.tsv)(?<!\.trn)")


@dataclass(frozen=True)
class System:
    """A system of a comparison.

    Attributes:
        name: the argument of the user.
        kind: `file`, `run`, `model`, `whisper` or `openai`.
        source: a path, or the name of a model.
        side: for a run, `base` or `adapted`.
    """

    name: str
    kind: str
    source: str
    side: str = ""


@dataclass(frozen=True)
class SystemHypotheses:
    """The hypotheses of one system.

    Attributes:
        outputs: one for each clip, in the order of the clips; None for a clip on which the system failed.
        about: how the hypotheses were made.
        failures: by id of a clip without output, the error.
        references: the references in a hypothesis file, "" for a clip without one; empty for a system that transcribes.
        unmatched: names of the rows of a hypothesis file that match no clip.
        reused: number of hypotheses that an earlier comparison kept.
        file: where the hypotheses are kept; None if they are not.
    """

    outputs: list[SystemOutput | None]
    about: str
    failures: dict[str, str] = field(default_factory=dict)
    references: list[str] = field(default_factory=list)
    unmatched: list[str] = field(default_factory=list)
    reused: int = 0
    file: str | None = None


Transcriber = Callable[[str, Sequence[Utterance]], SystemHypotheses]  # arguments: the name of a model, and the clips


def parse_system(name: str) -> System:
    """Parses the name of a system: `RUN`, `RUN:base`, a hypothesis file, a model, `whisper:SIZE` or `openai:MODEL`.

    Raises:
        RecipeError: `whisper:` or `openai:` without a model.
        DataError: the name has another form.
    """
    kind, _, model = name.partition(":")
    if kind in ("whisper", "openai") and name != kind:
        if not model:
            raise RecipeError(f"{name}: the model is missing; write {kind}:MODEL")
        return System(name, kind, model)
    root, _, side = name.rpartition(":")
    if side not in SYSTEMS or not Path(root).is_dir():
        root, side = name, "adapted"
    path = Path(root)
    if path.is_file() and path.suffix not in RECIPES:
        return System(name, "file", root)
    if RunDir(path).recipe.is_file():
        return System(name, "run", root, side)
    if (path / "config.json").is_file() or (_HUB_NAME.fullmatch(root) and not path.parent.exists()):
        return System(name, "model", root)
    hint = model_suggestion(path)
    raise DataError(
        f"{name}: not a system; give a run directory, a hypothesis file, a model folder, a hub name, whisper:SIZE or "
        f"openai:MODEL{f'; {hint}' * (not hint.startswith('give'))}"
    )


def run_system(
    system: System, clips: Sequence[Utterance], transcribers: Mapping[str, Transcriber] | None = None
) -> SystemHypotheses:
    """Reads the hypotheses of a system, or transcribes the clips with it.

    Args:
        system: the system.
        clips: the clips.
        transcribers: by kind, the function that transcribes; the default is `TRANSCRIBERS`.

    Raises:
        DataError: a file or a run does not match the clips, or the audio of a clip cannot be read.
        ModelError: a model, an engine or an endpoint cannot be used, or failed on every clip.
        MissingExtraError: an endpoint needs httpx, which is not installed.
    """
    if system.kind == "file":
        return _read_file(Path(system.source), clips, f"read from {system.source}", timed=False)
    if system.kind == "run":
        return _read_run(system, clips)
    log.info("%s: transcribing %s ...", system.name, count(len(clips), "clip"))
    hypotheses = (TRANSCRIBERS if transcribers is None else transcribers)[system.kind](system.source, clips)
    if len(hypotheses.failures) == len(clips):
        raise ModelError(f"{system.name}: all clips failed, the first with: {next(iter(hypotheses.failures.values()))}")
    return hypotheses


def _read_run(system: System, clips: Sequence[Utterance]) -> SystemHypotheses:
    """The hypotheses from the evaluation of a run, if the clips are its test or canary set."""
    run, errors = RunDir(system.source), list[DataError]()
    for split in ("test", "canary"):
        path = run.hypotheses(split, system.side)
        if path.is_file():
            try:
                return _read_file(path, clips, f"evaluation of {system.source}", timed=True)
            except DataError as error:
                errors.append(error)
    if not errors:
        raise DataError(f"{system.name}: this run has not been evaluated; run `finetune evaluate` first")
    raise DataError(f"{errors[0]}\nTo transcribe other clips with the model of this run, give its export: {run.export}")


def _read_file(path: Path, clips: Sequence[Utterance], about: str, timed: bool) -> SystemHypotheses:
    """Reads a hypothesis file; `timed` uses its column `time`, which only a run directory of this toolkit has."""
    labels = labels_of([Segment(clip.id, clip.speaker, clip.duration, "") for clip in clips])
    names = [ClipNames(clip.id, clip.audio_filepath, label) for clip, label in zip(clips, labels, strict=True)]
    unmatched: list[str] = []
    rows = read_hypotheses(path, names, unmatched)
    return SystemHypotheses(
        [_row_output(row, timed) for row in rows],
        about,
        references=[str(row.cells.get("text") or "") for row in rows],
        unmatched=unmatched,
        file=str(path),
    )


def _row_output(row: HypothesisRow, timed: bool) -> SystemOutput:
    time = row.cells.get("time")
    return SystemOutput(
        row.text, time if timed and isinstance(time, int | float) else 0.0, timed and row.cells.get("truncated") is True
    )


def _transcribe_model(source: str, clips: Sequence[Utterance]) -> SystemHypotheses:
    """Uses the instruction and decoder of an export, or the defaults of a recipe; batches as in evaluate."""
    from finetune.evaluation.decode import system_output, warn_about_limits
    from finetune.inference.recognize import recognize
    from finetune.model.float32 import load_for_inference
    from finetune.model.granite import default_device

    saved, default = clip_options(source), DecodingOptions()
    options = replace(saved.decoding, batch_seconds=default.batch_seconds, max_new_tokens=default.max_new_tokens)
    device = default_device()
    warn_about_limits(read_limits(source), clips, saved.instruction, options)
    hypotheses = recognize(load_for_inference(source, "auto", device), clips, saved.instruction, options)
    return SystemHypotheses(list(map(system_output, hypotheses)), f"{options.decoder} decoding on {device} now")


def _transcribe_whisper(model: str, clips: Sequence[Utterance]) -> SystemHypotheses:
    from finetune.evaluation import whisper

    outputs, engine = whisper.transcribe(model, clips)
    return SystemHypotheses(list(outputs), f"{engine}, one clip at a time")


def _transcribe_endpoint(model: str, clips: Sequence[Utterance]) -> SystemHypotheses:
    require("httpx", extra="compare")
    from finetune.evaluation import endpoint

    replies = endpoint.transcribe(model, clips)
    return SystemHypotheses(
        [None if reply.text is None else SystemOutput(reply.text, reply.seconds, False) for reply in replies],
        f"endpoint, {endpoint.PARALLEL_REQUESTS} clips at a time, network time included",
        {clip.id: reply.error for clip, reply in zip(clips, replies, strict=True) if reply.text is None},
    )


TRANSCRIBERS: Mapping[str, Transcriber] = {
    "model": _transcribe_model,
    "whisper": _transcribe_whisper,
    "openai": _transcribe_endpoint,
}
