"""The hypotheses of `finetune score` on disk: of whole test sets, and of the parts that jobs of an array decoded.

Each file has a record beside it with a hash of everything that its texts depend on; with another hash it is not used.
"""

import logging
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from finetune.core.array_job import Shard
from finetune.core.errors import DataError
from finetune.core.files import read_json, read_jsonl, write_json
from finetune.data.manifest import Utterance
from finetune.evaluation.utterance_rows import hypothesis_row
from finetune.inference.recognize import Hypothesis, decoding_summary
from finetune.metrics.sclite import write_rows
from finetune.metrics.scorecard import SystemOutput

log = logging.getLogger(__name__)

SHARDS = "shards"  # folder for the parts
DIGEST = "audio_digest"  # key of a row: a hash of the samples
Rows = dict[str, dict[str, Any]]  # by id


class SetFiles:
    """The files of one test set.

    Args:
        folder: the folder `score` of a run.
        name: the name of the set.
        input_hash: a hash of everything that the hypotheses depend on.
    """

    def __init__(self, folder: Path, name: str, input_hash: str) -> None:
        self.folder, self.name, self.input_hash = folder, name, input_hash

    def write(
        self, utterances: Sequence[Utterance], hypotheses: Sequence[Hypothesis], shard: Shard | None = None
    ) -> None:
        """Writes hypotheses of the set, or of the part of one job."""
        rows = (
            {**hypothesis_row(item, hypothesis), DIGEST: item.audio_digest}
            for item, hypothesis in zip(utterances, hypotheses, strict=True)
        )
        self._write(self._path(shard), rows, decoding_summary(hypotheses))

    def outputs(self, utterances: Sequence[Utterance]) -> list[SystemOutput] | None:
        """The outputs of an earlier call with the same inputs and audio, or of all jobs of an array; None without."""
        rows_by_id = self.rows(self._path(None)) or {}
        if not _complete(rows_by_id, utterances) and (shards := self.shards()):
            parts = [self.rows(self._path(shard)) or {} for shard in shards]
            rows_by_id = {name: row for part in parts for name, row in part.items()}
            if _complete(rows_by_id, utterances):
                self._write(self._path(None), (rows_by_id[item.id] for item in utterances), {"shards": shards[0].count})
        if not _complete(rows_by_id, utterances):
            return None
        return [_output(rows_by_id[item.id]) for item in utterances]

    def has(self, shard: Shard, utterances: Sequence[Utterance]) -> bool:
        """Whether a job has decoded its part of these utterances."""
        rows = self.rows(self._path(shard))
        chosen = [item for number, item in enumerate(utterances) if shard.has(number)]
        return rows is not None and _complete(rows, chosen)

    def shards(self) -> list[Shard]:
        """All jobs of the newest array of which a part is there."""
        records = sorted(
            (self.folder / SHARDS).glob(f"{self.name}.*-*.done.json"), key=lambda path: path.stat().st_mtime
        )
        if not records:
            return []
        count = int(records[-1].name.removesuffix(".done.json").rpartition("-")[2])
        return [Shard(number, count) for number in range(1, count + 1)]

    def rows(self, path: Path) -> Rows | None:
        """The rows of a file; None if it is missing, damaged or of other inputs."""
        record = _record(path)
        try:
            if not record.is_file() or read_json(record)["inputs"] != self.input_hash:
                return None
            rows = {str(row["id"]): row for row in read_jsonl(path)}
            for row in rows.values():
                _output(row)
            return rows
        except (OSError, ValueError, KeyError, TypeError, DataError) as error:
            log.warning("%s: damaged, so the clips are transcribed again (%s)", record, error)
            return None

    def _path(self, shard: Shard | None) -> Path:
        if shard is None:
            return self.folder / f"{self.name}.jsonl"
        return self.folder / SHARDS / f"{self.name}.{shard.number}-{shard.count}.jsonl"

    def _write(self, path: Path, rows: Iterable[Mapping[str, object]], decoding: Mapping[str, object]) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        record = _record(path)
        record.unlink(missing_ok=True)
        write_rows(path, rows)
        write_json(record, {"inputs": self.input_hash, "decoding": decoding})


def _complete(rows: Rows, utterances: Sequence[Utterance]) -> bool:
    """Whether there is a row of the same audio for each utterance; another normalizer keeps more of them.

    Rows of version 0.2 do not say which audio was decoded.
    """
    return all(
        item.id in rows and rows[item.id].get(DIGEST, item.audio_digest) == item.audio_digest for item in utterances
    )


def _record(path: Path) -> Path:
    return path.with_name(f"{path.name.removesuffix('.jsonl')}.done.json")


def _output(row: Mapping[str, Any]) -> SystemOutput:
    return SystemOutput(row["pred_text"], row["time"], row["truncated"])
