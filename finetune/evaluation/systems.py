"""The systems of a comparison, as a person names them, and what each of them hears in the clips."""

import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from finetune.core.errors import DataError, ModelError, RecipeError
from finetune.core.extras import require
from finetune.core.options import DecodingOptions
from finetune.core.run_dir import RunDir
from finetune.data.manifest import Utterance
from finetune.evaluation.hypothesis_files import Hypothesis, Names, read_hypotheses
from finetune.inference.saved_options import options_for
from finetune.metrics.sclite import Segment, labels_of
from finetune.metrics.scorecard import SystemOutput

log = logging.getLogger(__name__)

KINDS = ("file", "run", "model", "whisper", "openai")  # what can fail at once comes first, what costs most last
SIDES = ("base", "adapted")
_HUB_NAME = re.compile(r"\w[\w.-]*/\w[\w.-]*(?<!\.jsonl)(?<!\.json)(?<!\.csv)(?<!\.tsv)(?<!\.trn)")


@dataclass(frozen=True)
class System:
    """`name` as given; `source` is a path or a model, `side` says whose hypotheses of a run."""

    name: str
    kind: str
    source: str
    side: str = ""


@dataclass(frozen=True)
class Answer:
    """`heard` in the order of the clips, None where the system failed; `failures` says why, by the clip's id.

    `references` are the texts that a file says were spoken ("" where it says nothing), `about` is how it was heard.
    """

    heard: list[SystemOutput | None]
    about: str
    failures: dict[str, str] = field(default_factory=dict)
    references: list[str] = field(default_factory=list)


def system_of(name: str) -> System:
    """What a name means: a run directory (`RUN`, `RUN:base`), a file of hypotheses, a model, `whisper:`, `openai:`.

    Raises:
        RecipeError: `whisper:` or `openai:` without a model.
        DataError: no such thing.
    """
    kind, _, rest = name.partition(":")
    if kind in ("whisper", "openai") and name != kind:
        if not rest:
            raise RecipeError(f"{name}: which model? Write {kind}:MODEL")
        return System(name, kind, rest)
    root, _, side = name.rpartition(":")
    if side not in SIDES or not Path(root).is_dir():
        root, side = name, "adapted"
    path = Path(root)
    if path.is_file():
        return System(name, "file", root)
    if RunDir(path).recipe.is_file():
        return System(name, "run", root, side)
    if (path / "config.json").is_file() or (_HUB_NAME.fullmatch(root) and not path.parent.exists()):
        return System(name, "model", root)
    raise DataError(
        f"{name}: neither a run directory, a file of hypotheses nor a model folder; nor is it whisper:SIZE "
        "or openai:MODEL"
    )


def run_system(system: System, clips: Sequence[Utterance]) -> Answer:
    """What a system hears in the clips.

    Raises:
        DataError: a file or a run that does not fit the clips, or audio that cannot be read.
        ModelError: a model, an engine or an endpoint that cannot be used, or that failed on every clip.
        MissingExtraError: the endpoint needs httpx, which is not installed.
    """
    if system.kind == "file":
        return _read(Path(system.source), clips, f"read from {system.source}", timed=False)
    if system.kind == "run":
        return _kept(system, clips)
    log.info("%s listens to %d clips ...", system.name, len(clips))
    if system.kind == "model":
        return _decode(system.source, clips)
    if system.kind == "whisper":
        from finetune.evaluation import whisper

        found, engine = whisper.transcribe(system.source, clips)
        return Answer([SystemOutput(text, seconds, False) for text, seconds in found], f"{engine}, one clip at a time")
    require("httpx", extra="compare")
    from finetune.evaluation import endpoint

    replies = endpoint.transcribe(system.source, clips)
    failures = {clip.id: reply.fault for clip, reply in zip(clips, replies, strict=True) if reply.text is None}
    if len(failures) == len(clips):
        raise ModelError(f"{system.name}: no clip was transcribed; the first: {next(iter(failures.values()))}")
    return Answer(
        [None if reply.text is None else SystemOutput(reply.text, reply.seconds, False) for reply in replies],
        f"endpoint, {endpoint.PARALLEL} clips at a time, the network's time included",
        failures,
    )


def _kept(system: System, clips: Sequence[Utterance]) -> Answer:
    """The hypotheses of a run's evaluation, of whichever set the clips are."""
    run, faults = RunDir(system.source), list[DataError]()
    for split in ("test", "canary"):
        path = run.hypotheses(split, system.side)
        if path.is_file():
            try:
                return _read(path, clips, f"evaluation of {system.source}", timed=True)
            except DataError as error:
                faults.append(error)
    if not faults:
        raise DataError(f"{system.name}: this run has not been evaluated; finetune evaluate does it")
    raise DataError(f"{faults[0]}\nTo hear other clips with this run's model, give its export: {run.export}")


def _read(path: Path, clips: Sequence[Utterance], about: str, timed: bool) -> Answer:
    labels = labels_of([Segment(clip.id, clip.speaker, clip.duration, "") for clip in clips])
    rows = read_hypotheses(
        path, [Names(clip.id, clip.audio_filepath, label) for clip, label in zip(clips, labels, strict=True)]
    )
    return Answer(
        [_heard(row, timed) for row in rows], about, references=[str(row.cells.get("text") or "") for row in rows]
    )


def _heard(row: Hypothesis, timed: bool) -> SystemOutput:
    """Seconds of a stranger's file were measured elsewhere, and are not taken over."""
    time = row.cells.get("time")
    return SystemOutput(
        row.text, time if timed and isinstance(time, int | float) else 0.0, timed and row.cells.get("truncated") is True
    )


def _decode(source: str, clips: Sequence[Utterance]) -> Answer:
    """With an export's own instruction and decoder, or the recipe's defaults; batches and lengths as in evaluate."""
    import torch

    from finetune.evaluation.decode import decode_utterances
    from finetune.model.granite import load_model

    saved, default = options_for(source), DecodingOptions()
    options = replace(saved.decoding, batch_seconds=default.batch_seconds, max_new_tokens=default.max_new_tokens)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    found = decode_utterances(load_model(source, "auto", device), list(clips), saved.instruction, options)
    return Answer(
        [SystemOutput(item.text, item.seconds, item.truncated) for item in found],
        f"{options.decoder} decoding on {device} now",
    )
