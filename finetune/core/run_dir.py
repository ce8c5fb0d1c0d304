"""The name of every file in a run directory, its lock, and the markers that say a stage is done."""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from finetune.core.errors import CheckpointError
from finetune.core.files import read_json, write_json

log = logging.getLogger(__name__)

SCHEMA = 2  # of evaluation/metrics.json: one more for each change of what its keys mean
CHILD = "FINETUNE_LAUNCHED"  # set for processes whose parent holds the lock of the run directory


class RunDir:
    """`runs/<name>`: where each stage reads and writes."""

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root)
        self.recipe = self.root / "recipe.json"  # what makes the directory this recipe's own
        self.resolved = self.root / "resolved.json"  # every value of the recipe; JSON is YAML, so it can be run
        self.problems = self.root / "manifests" / "problems.json"
        self.manifests = self.root / "manifests"
        self.media = self.root / "media"
        self.checkpoint = self.root / "checkpoint"
        self.best = self.root / "best"
        self.cache = self.root / "cache"
        self.metrics = self.root / "metrics.jsonl"
        self.evaluation = self.root / "evaluation"
        self.scores = self.evaluation / "metrics.json"
        self.utterances = self.evaluation / "utterances.jsonl"
        self.suspicious = self.evaluation / "suspicious.jsonl"
        self.probes = self.evaluation / "probes"
        self.report = self.root / "report"
        self.page = self.report / "report.html"
        self.digest = self.report / "summary.md"
        self.score = self.root / "score"
        self.export = self.root / "export"
        self.summary = self.root / "summary.json"

    def manifest(self, split: str) -> Path:
        return self.manifests / f"{split}.jsonl"

    def hypotheses(self, split: str, which: str) -> Path:
        """`which` is base or adapted."""
        return self.evaluation / f"{split}.{which}.jsonl"

    def transcripts(self, split: str, which: str, form: str) -> Path:
        """`which` is ref, base or adapted, `form` trn, stm or ctm."""
        return self.evaluation / f"{split}.{which}.{form}"

    def marker(self, stage: str) -> Path:
        return self.root / f"{stage}.done.json"

    def done(self, stage: str) -> dict[str, Any] | None:
        """What a finished stage recorded; None when it has not finished."""
        return _whole(self.marker(stage))

    def finish(self, stage: str, record: dict[str, Any]) -> None:
        """Written last, so that a killed stage is never taken for a finished one."""
        write_json(self.marker(stage), record)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Refuses a second process in the same run directory; a lock left by a dead one is taken over."""
        self.root.mkdir(parents=True, exist_ok=True)
        lock = self.root / "lock"
        import fcntl

        with lock.open("a+") as handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise CheckpointError(f"{self.root}: another process works in this run directory") from error
            os.set_inheritable(handle.fileno(), True)  # held as long as a process lives that `launch` has started
            yield

    def claim(self, recipe: dict[str, Any]) -> None:
        """Makes the directory this recipe's own.

        A recipe that changes before anything was trained (a failed prepare, too large a batch) may come back.

        Raises:
            CheckpointError: it holds what another recipe trained (the message names what differs), or is no run.
        """
        self.root.mkdir(parents=True, exist_ok=True)
        if self.recipe.is_file():
            last = _whole(self.recipe)  # without it the checkpoint alone says whether it fits
            before, now = flatten(recipe if last is None else last), flatten(recipe)
            changed = sorted(key for key in {*before, *now} if before.get(key) != now.get(key))
            if changed and (self.checkpoint.exists() or self.best.exists()):
                raise CheckpointError(
                    f"{self.root} holds a run of another recipe (differs in {', '.join(changed[:5])}); "
                    "choose another name with --set name=..., or delete the directory"
                )
        elif any(path.name != "lock" for path in self.root.iterdir()):
            raise CheckpointError(
                f"{self.root} exists and is not a run directory; choose another name with --set name=..."
            )
        write_json(self.recipe, recipe)


def flatten(tree: Any, prefix: str = "") -> dict[str, Any]:
    """Nested keys as dotted ones."""
    if not isinstance(tree, dict):
        return {prefix.rstrip("."): tree}
    return {key: value for name, inner in tree.items() for key, value in flatten(inner, f"{prefix}{name}.").items()}


def _whole(path: Path) -> dict[str, Any] | None:
    """The content of a JSON file; None where it is missing, or damaged, which is said."""
    try:
        content: dict[str, Any] = read_json(path)
        return content
    except FileNotFoundError:
        return None
    except ValueError as error:
        log.warning("%s: damaged, and taken for missing (%s)", path, error)
        return None
