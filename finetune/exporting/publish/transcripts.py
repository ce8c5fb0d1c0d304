"""Finds transcripts of a run's data in the files of an export, before they are sent."""

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping

from finetune.core.files import stream_jsonl
from finetune.core.run_dir import RunDir
from finetune.data.splits import SPLITS

WORDS, CHARACTERS = 5, 10  # shorter transcripts, in words or Chinese and Japanese characters, can be there by chance
TOKEN = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]|[^\W\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]+")


def transcripts_in(texts: Mapping[str, str], run: RunDir) -> Iterator[tuple[str, str, str]]:
    """File name, split and id of each utterance whose transcript is in the file, in any case and punctuation.

    Args:
        texts: The content of each file, by name.
        run: The run directory; each transcript of its manifests is compared. Only one is in memory.

    Raises:
        DataError: a manifest is damaged.
    """
    joined = {name: f" {' '.join(_tokens(text))} " for name, text in texts.items()}
    files_with = defaultdict[str, set[str]](set)
    for name, text in joined.items():
        for start in _starts(text.split()):
            files_with[start].add(name)
    for split in SPLITS:
        path = run.manifest(split)
        for _, row in stream_jsonl(path) if path.is_file() else ():
            tokens = _tokens(str(row.get("text", "")))
            if len(tokens) < (CHARACTERS if sum(map(len, tokens)) == len(tokens) else WORDS):
                continue
            transcript = f" {' '.join(tokens)} "
            for name in sorted(files_with.get(" ".join(tokens[:WORDS]), ())):
                if transcript in joined[name]:
                    yield name, split, str(row.get("id", ""))


def _tokens(text: str) -> list[str]:
    return TOKEN.findall(text.casefold().replace("'", "").replace("\u2019", ""))


def _starts(tokens: list[str]) -> Iterator[str]:
    """Every run of WORDS tokens."""
    return (" ".join(tokens[index : index + WORDS]) for index in range(len(tokens) - WORDS + 1))
