"""Writes a manifest for NVIDIA NeMo: JSON Lines with `audio_filepath`, `duration`, `text`, and `offset` for a segment.

Source of the keys: the NeMo documentation, "Speech AI datasets". `lang` is the language. All other columns are kept,
because NeMo ignores columns that it does not know.
"""

from collections.abc import Iterable
from pathlib import Path

from finetune.core.files import write_lines
from finetune.data.manifest import VERSION_KEY, Utterance, json_line, manifest_row

RENAMED = {"language": "lang"}
LEFT_OUT = (VERSION_KEY, "audio_digest")


def write_nemo_manifest(path: Path, utterances: Iterable[Utterance]) -> None:
    """Writes the manifest atomically.

    Raises:
        DataError: an utterance cannot be written as JSON.
    """
    write_lines(path, (json_line(_row(item), item.id) for item in utterances))


def _row(item: Utterance) -> dict[str, object]:
    return {RENAMED.get(key, key): value for key, value in manifest_row(item).items() if key not in LEFT_OUT}
