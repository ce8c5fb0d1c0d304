"""The files that `finetune pseudo-label` and `finetune suggest` write, and checks of them before any work."""

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from finetune.core.errors import DataError, RecipeError
from finetune.core.files import write_json, write_text
from finetune.curation.untranscribed import SetAside
from finetune.data.manifest import Utterance, write_manifest


@dataclass(frozen=True)
class CurationFiles:
    """Where results are written. `work` has the transcripts of an unfinished call, `media` audio that was embedded."""

    manifest: Path
    set_aside: Path
    summary: Path
    work: Path
    media: Path

    @classmethod
    def of(cls, manifest: Path) -> "CurationFiles":
        """The files beside a manifest."""
        ends = (".set_aside.jsonl", ".summary.json", ".work.jsonl", ".media")
        return cls(manifest, *(manifest.with_name(manifest.stem + end) for end in ends))

    def check(self, source: str, overwrite: bool) -> None:
        """Checks that the results can be written, and do not replace the input.

        Args:
            source: the input.
            overwrite: whether existing files may be replaced.

        Raises:
            RecipeError: the name of the manifest does not end in .jsonl.
            DataError: a file is the input, exists, or its folder cannot be written.
        """
        if self.manifest.suffix != ".jsonl":
            raise RecipeError(f"-o {self.manifest}: the manifest is JSON Lines; choose a name that ends in .jsonl")
        for path in (self.manifest, self.set_aside, self.summary, self.work):
            if path.is_dir():
                raise DataError(f"{path}: this is a folder; name a file for -o")
            if path.exists() and Path(source).exists() and path.samefile(source):
                raise DataError(f"{path}: this is the input; choose another file for -o")
            if path != self.work and path.exists() and not overwrite:
                raise DataError(f"{path}: exists already; choose another file, or add --overwrite to replace it")
        folder = self.manifest.parent
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise DataError(f"{folder}: cannot be written ({error.strerror})") from error
        if not os.access(folder, os.W_OK | os.X_OK):
            raise DataError(f"{folder}: cannot be written (permission denied)")

    def write(self, rows: Iterable[Utterance], aside: Iterable[SetAside], summary: Mapping[str, object]) -> None:
        """Writes the results, and deletes what only an interrupted call needs."""
        write_manifest(self.manifest, rows)
        write_text(self.set_aside, "".join(json.dumps(asdict(row)) + "\n" for row in aside))
        write_json(self.summary, dict(summary))
        self.work.unlink(missing_ok=True)
