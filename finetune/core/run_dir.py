"""The run directory: the names of its files, its lock, and the markers of completed stages."""

import errno
import logging
import os
import shutil
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any, TypeVar

from finetune.core.defaults import without_new_defaults
from finetune.core.errors import CheckpointError, FinetuneError
from finetune.core.files import backup_folder, is_disk_full, read_json, write_json
from finetune.core.renamed import RENAMED

log = logging.getLogger(__name__)

Result = TypeVar("Result")
CHILD = "FINETUNE_LAUNCHED"  # set in processes whose parent holds the lock of the run directory


class RunDir:
    """The paths in `runs/<name>`, which the stages read and write."""

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root)
        self.recipe = self.root / "recipe.json"  # the settings that must not change in this directory
        self.resolved = self.root / "resolved.json"  # every setting of the recipe; `finetune run` reads it
        self.problems = self.root / "manifests" / "problems.json"
        self.style = self.root / "manifests" / "style.json"
        self.manifests = self.root / "manifests"
        self.audio_files = self.manifests / "audio_files.npz"
        self.prepare_work = self.root / "prepare.work"  # blocks of rows that an unfinished `prepare` has checked
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

    def exported(self, format_name: str) -> Path:
        """The folder of an exported adapter."""
        return self.root / f"export-{format_name}"

    def hypotheses(self, split: str, system: str) -> Path:
        """`system` is `base` or `adapted`."""
        return self.evaluation / f"{split}.{system}.jsonl"

    def transcripts(self, split: str, system: str, extension: str) -> Path:
        """`system` is `ref`, `base` or `adapted`; `extension` is `trn`, `stm` or `ctm`."""
        return self.evaluation / f"{split}.{system}.{extension}"

    def marker(self, stage: str) -> Path:
        return self.root / f"{stage}.done.json"

    def done(self, stage: str) -> dict[str, Any] | None:
        """The record of a completed stage; None if it has not completed."""
        return _read_record(self.marker(stage))

    def find_best(self) -> bool:
        """Whether there is a best adapter. One that a kill left between the two renames of a save is moved back."""
        if not self.best.exists() and (previous := backup_folder(self.best)).exists():
            previous.replace(self.best)
        return self.best.exists()

    def result(self, stage: str, result_type: Callable[..., Result]) -> Result:
        """The record of a completed stage as the dataclass that the stage returned.

        A field with a default can be missing: an earlier version did not record it.

        Raises:
            CheckpointError: the record is missing or damaged.
        """
        record = self.done(stage) or {}
        items = fields(result_type)  # type: ignore[arg-type]
        required = [item.name for item in items if item.default is MISSING and item.default_factory is MISSING]
        missing = [name for name in required if name not in record]
        if missing:
            raise CheckpointError(f"{self.marker(stage)}: has no {missing[0]!r}; delete it, then rerun {stage}")
        return result_type(**{item.name: record[item.name] for item in items if item.name in record})

    def finish(self, stage: str, record: dict[str, Any]) -> None:
        """Writes the record of a completed stage. A killed stage has no record."""
        write_json(self.marker(stage), record)

    @contextmanager
    def locked(self, shared: bool = False, patience: float = 0.0) -> Iterator[None]:
        """Holds the lock of the run directory. The system releases the lock of a process that ended.

        Args:
            shared: together with other processes that share it, such as jobs of an array.
            patience: seconds to wait for a process that holds it.

        Raises:
            CheckpointError: another process holds it, the directory cannot be written, or the disk is full.
        """
        import fcntl

        try:
            self.root.mkdir(parents=True, exist_ok=True)
            lock = (self.root / "lock").open("a+")
        except (OSError, ValueError) as error:  # ValueError: a null byte in the name
            if is_disk_full(error):
                raise
            reason = getattr(error, "strerror", None) or error
            raise CheckpointError(f"{self.root}: the run directory cannot be written ({reason})") from error
        with lock as handle:
            last = time.monotonic() + patience
            while True:
                try:
                    fcntl.flock(handle, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
                    break
                except OSError as error:
                    if time.monotonic() >= last:
                        raise CheckpointError(f"{self.root}: another process uses this run directory") from error
                time.sleep(0.1)
            os.set_inheritable(handle.fileno(), True)  # launched processes hold the lock too
            with full_disk_is_an_error(self.root):
                yield

    def claim(self, settings: dict[str, Any]) -> None:
        """Records the settings that this directory belongs to. They can change until something was trained.

        Keys that the record of an earlier version does not have are added only if they do not have their defaults, so
        hashes of what that version has completed stay valid.

        Args:
            settings: Sections of a recipe.

        Raises:
            CheckpointError: another recipe was trained here (the message names the differing keys), an earlier version
                of the toolkit with other keys trained here, or this is not a run directory.
        """
        self.root.mkdir(parents=True, exist_ok=True)
        recorded = self.check_claim(settings)
        settings = settings if recorded is None else without_new_defaults(settings, recorded)
        if settings != recorded:
            write_json(self.recipe, settings)

    def claimed(self) -> dict[str, Any]:
        """The settings that `claim` recorded; empty if there are none, or they are damaged."""
        return _read_record(self.recipe) or {}

    def check_claim(self, settings: dict[str, Any]) -> dict[str, Any] | None:
        """The check of `claim`, which writes nothing and raises its errors. Returns the settings recorded so far."""
        recorded = None
        if self.recipe.is_file():
            recorded = _read_record(self.recipe)
            if recorded is not None and (self.checkpoint.exists() or self.best.exists()):
                self.check_version()
                previous, current = flatten(recorded), flatten(without_new_defaults(settings, recorded))
                changed = sorted(key for key in {*previous, *current} if previous.get(key) != current.get(key))
                if changed:
                    raise CheckpointError(
                        f"{self.root} holds a run of another recipe (differs in {', '.join(changed[:5])}); "
                        f"to go on with it, give its recipe {self.resolved} or the same --set; for a new run choose "
                        "another name with --set name=..., or delete the directory"
                    )
            # A damaged record is replaced: the checkpoint contains the settings too, and training compares them.
        elif self.root.is_dir():
            self.require_own()
        return recorded

    def require_own(self) -> None:
        """Raises CheckpointError if the directory has files and is not a run directory."""
        before_claim = {"lock", *(path.name for path in (self.prepare_work, self.media, self.score))}  # of array jobs
        if not self.recipe.is_file() and any(path.name not in before_claim for path in self.root.iterdir()):
            raise CheckpointError(
                f"{self.root} exists and is not a run directory; choose another name with --set name=..."
            )

    def check_writable(self) -> None:
        """Raises the error of `locked` if the directory cannot be made or written; makes and writes nothing."""
        nearest = next((path for path in (self.root, *self.root.parents) if os.path.lexists(path)), Path())
        reason = ""
        if not nearest.is_dir():
            reason = os.strerror(errno.EEXIST if nearest == self.root else errno.ENOTDIR)
        elif not os.access(nearest, os.W_OK | os.X_OK):
            reason = os.strerror(errno.EACCES)
        if reason:
            raise CheckpointError(f"{self.root}: the run directory cannot be written ({reason})")

    def check_version(self) -> None:
        """Raises CheckpointError if an earlier version of the toolkit, with other recipe keys, trained here."""
        renamed = sorted(flatten(self.claimed()).keys() & RENAMED.keys())
        if renamed:
            new_names = ", ".join(RENAMED[key] for key in renamed)
            raise CheckpointError(
                f"{self.root} was trained by an earlier version of the toolkit (its recipe has {', '.join(renamed)}, "
                f"now {new_names}), so it cannot be resumed, evaluated or reported again. Train again under another "
                "name with --set name=..., or delete the directory; `finetune compare` and `finetune transcribe` can "
                "still use it"
            )


@contextmanager
def damage_is_an_error(root: Path, advice: str) -> Iterator[None]:
    """Turns the errors of reading a file with another content than its stage wrote into a CheckpointError."""
    try:
        yield
    except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        place = traceback.extract_tb(error.__traceback__)[-1]
        raise CheckpointError(
            f"{root}: a file of this run is damaged ({type(error).__name__}: {str(error)[:200]}, at "
            f"{Path(place.filename).name}:{place.lineno}); {advice}"
        ) from error


@contextmanager
def full_disk_is_an_error(root: Path) -> Iterator[None]:
    """Turns the error of a full disk into a CheckpointError that names the disk: few such errors name their file."""
    try:
        yield
    except Exception as error:
        if isinstance(error, FinetuneError) or not is_disk_full(error):
            raise
        place = min(str(root), tempfile.gettempdir(), key=lambda folder: shutil.disk_usage(folder).free)
        raise CheckpointError(f"{place}: the disk is full ({error}); free some disk space, then rerun") from error


def flatten(tree: Any, prefix: str = "") -> dict[str, Any]:
    """Nested keys as dotted keys."""
    if not isinstance(tree, dict):
        return {prefix.rstrip("."): tree}
    return {key: value for name, inner in tree.items() for key, value in flatten(inner, f"{prefix}{name}.").items()}


def _read_record(path: Path) -> dict[str, Any] | None:
    """The content of a JSON file; None if it is missing or damaged. A damaged file is logged."""
    try:
        content: dict[str, Any] = read_json(path)
        if not isinstance(content, dict):
            raise ValueError("not a JSON object")
        return content
    except (FileNotFoundError, NotADirectoryError):
        return None
    except ValueError as error:
        log.warning("%s: damaged, so it is ignored (%s)", path, error)
        return None
