"""Gives utterances of replay new ids where train has the same, because an epoch contains both splits."""

import logging
from dataclasses import replace

import numpy as np

from finetune.core.hash_index import KEY_BYTES, HashIndex, text_key
from finetune.data.manifest import id_of_place, manifest_line, numbered_id, parse_manifest_line
from finetune.data.problems import Problem, ProblemSummary
from finetune.data.split_files import SplitResult

log = logging.getLogger(__name__)


def rename_shared_ids(replay: SplitResult, train: SplitResult) -> None:
    """Changes the manifest and the columns of replay; adds a warning for each new id, and logs them."""
    train_ids = np.concatenate([block["id"] for block in train.blocks()])
    columns = np.concatenate(list(replay.blocks()))
    shared = np.isin(columns["id"], train_ids)
    if not shared.any():
        return
    used_ids, numbers, summary = HashIndex(), dict[str, int](), ProblemSummary()
    for key in {*train_ids.tolist(), *columns["id"].tolist()}:
        used_ids.set_new_key(key.ljust(KEY_BYTES, b"\0"), 1)  # NumPy removes zeros at the end
    manifest = replay.paths.manifest.with_suffix(".new")
    with open(replay.paths.manifest, "rb") as lines, open(manifest, "wb") as file:
        for row, line in enumerate(lines):
            if shared[row]:
                item = parse_manifest_line(line)
                name = id_of_place(item.audio_filepath, item.offset, item.channel)
                new_id = numbered_id(name, used_ids, numbers)
                used_ids.set_new(new_id, 1)
                problem = Problem("id changed", new_id, item.audio_filepath, f"data.train has the id {item.id!r} too")
                summary.add(problem)
                replay.add_warnings([problem])
                line = manifest_line(replace(item, id=new_id))
                columns["id"][row] = text_key(new_id)
            columns["line"][row] = file.tell()
            file.write(line)
    manifest.replace(replay.paths.manifest)
    replay.paths.columns.write_bytes(columns.tobytes())
    log.info(summary.text())
