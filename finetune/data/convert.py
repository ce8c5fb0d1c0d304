"""Converts a corpus to another format: the manifest, NeMo, Lhotse, a Hugging Face data set, or tar shards.

Every row is checked as in `finetune prepare`, without its limits. A row that cannot be used is reported and left out.
"""

import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from math import inf
from pathlib import Path
from typing import Literal, get_args

from finetune.core.errors import DataError
from finetune.data.audit import Audit, audit
from finetune.data.byte_range import is_url, parse_byte_range
from finetune.data.corpora import read_corpus
from finetune.data.manifest import Utterance, write_manifest
from finetune.data.writers.clip_audio import ClipAudio, Codec, encode_clip, write_clips

Target = Literal["manifest", "nemo", "lhotse", "hf", "shards"]
TARGETS: tuple[Target, ...] = get_args(Target)
SUFFIXES: dict[str, Target] = {".jsonl.gz": "lhotse", ".jsonl": "manifest"}
FOLDERS = ("hf", "shards")  # targets that contain the audio
AHEAD = 64  # clips that are encoded ahead of the writer


@dataclass(frozen=True)
class ConvertOptions:
    """How `convert` writes.

    Attributes:
        target: the format; None chooses by the name of the output.
        codec: of audio in shards and data sets.
        shard_bytes: size of a shard or a Parquet file, in bytes.
        split: name of the split in a Hugging Face data set.
        audio: folder for the clips as files, for the formats that name audio files; None leaves the audio in place.
        overwrite: replace existing files.
    """

    target: Target | None = None
    codec: Codec = "flac"
    shard_bytes: int = 500_000_000
    split: str = "train"
    audio: Path | None = None
    overwrite: bool = False


@dataclass(frozen=True)
class ConvertResult:
    """The result of `convert`: the written files, the number of clips, seconds of audio, and the rows left out."""

    files: list[Path]
    clips: int
    seconds: float
    audit: Audit = field(repr=False)


def convert(source: str, out: Path, options: ConvertOptions) -> ConvertResult:
    """Reads a corpus and writes it in another format.

    Args:
        source: a corpus, as in `data.train` of a recipe.
        out: the file or folder to write.
        options: format, codec, sizes.

    Raises:
        DataError: the corpus cannot be read or has no usable row, or the output exists.
    """
    target = options.target or target_of(out)
    _check_output(out, target, options.overwrite)
    rows = read_corpus(source, out.with_name(f"{out.name.partition('.')[0]}_media"))
    result = audit(
        rows,
        min_duration=0.0,
        max_duration=inf,
        max_chars_per_second=inf,
        special_tokens=(),
        workers=os.cpu_count() or 1,
        wordless="keep",
    )
    if not result.kept:
        first = result.dropped[0]
        raise DataError(f"{source}: 0 of {len(rows)} rows are usable: {first.where}: {first.kind}: {first.detail}")
    files = write_corpus(out, target, result.kept, options)
    return ConvertResult(files, len(result.kept), sum(item.duration for item in result.kept), result)


def target_of(out: Path) -> Target:
    """The format that the name of an output has. Raises DataError if none is known."""
    for suffix, target in SUFFIXES.items():
        if out.name.endswith(suffix):
            return target
    raise DataError(f"{out}: choose the format with --to {', '.join(TARGETS)}")


def write_corpus(out: Path, target: Target, utterances: Sequence[Utterance], options: ConvertOptions) -> list[Path]:
    """Writes utterances in a format. Returns the files.

    Raises:
        DataError: audio cannot be read, or an utterance cannot be written.
    """
    from finetune.data.writers.lhotse import write_cuts
    from finetune.data.writers.nemo import write_nemo_manifest
    from finetune.data.writers.parquet import schema_of, write_parquet
    from finetune.data.writers.tar_shards import write_tar_shards

    if target == "shards":
        return write_tar_shards(out, encoded(utterances, options.codec), options.shard_bytes)
    if target == "hf":
        clips, schema = encoded(utterances, options.codec), schema_of(utterances)
        return write_parquet(out, clips, schema, options.shard_bytes, options.split)
    if options.audio is not None:
        utterances = list(write_clips(options.audio, encoded(utterances, options.codec)))
    elif target != "manifest" and (member := next((item for item in utterances if not is_local_file(item)), None)):
        raise DataError(
            f"{out}: {target} cannot name {member.audio_filepath}; add --audio DIR to write the clips as files"
        )
    {"manifest": write_manifest, "nemo": write_nemo_manifest, "lhotse": write_cuts}[target](out, utterances)
    return [out]


def encoded(utterances: Iterable[Utterance], codec: Codec) -> Iterator[tuple[Utterance, ClipAudio]]:
    """The utterances with their audio, in order; threads encode ahead."""
    items = iter(utterances)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        while block := list(islice(items, AHEAD)):
            yield from zip(block, pool.map(partial(encode_clip, codec=codec), block), strict=True)


def is_local_file(item: Utterance) -> bool:
    """Whether the audio is a file, not a member of an archive or a URL."""
    return parse_byte_range(item.audio_filepath) is None and not is_url(item.audio_filepath)


def _check_output(out: Path, target: Target, overwrite: bool) -> None:
    """Raises DataError if the output is of another kind than the format, or exists."""
    if target in FOLDERS and out.is_file():
        raise DataError(f"{out}: this is a file; name a folder for --to {target}")
    if target not in FOLDERS and out.is_dir():
        raise DataError(f"{out}: this is a folder; name a file for --to {target}, such as {out / 'train.jsonl'}")
    if not overwrite and (any(out.iterdir()) if out.is_dir() else out.exists()):
        raise DataError(f"{out} already exists; choose another name, or add --overwrite to replace it")
