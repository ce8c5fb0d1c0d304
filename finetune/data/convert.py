"""Converts a corpus to another format: the manifest, NeMo, Lhotse, a Hugging Face data set, or tar shards.

Every row is checked as in `finetune prepare`, by default without its limits. A row that cannot be used is reported and
left out.
"""

import logging
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from itertools import islice
from math import inf
from pathlib import Path
from shutil import rmtree
from tempfile import TemporaryDirectory
from typing import Literal, get_args

from finetune.core import progress
from finetune.core.data_config import TextSection
from finetune.core.errors import DataError
from finetune.core.files import output_folder
from finetune.core.wording import count
from finetune.core.worker_pool import WorkerPool, available_cores
from finetune.data.audit import RowComparison
from finetune.data.byte_range import is_url, parse_byte_range
from finetune.data.corpora import read_corpus
from finetune.data.manifest import Utterance, write_manifest
from finetune.data.problems import ProblemSummary
from finetune.data.row_blocks import BlockChecker, RowBlocks, uses_processes
from finetune.data.row_result import RowSettings
from finetune.data.split_files import SplitItems, SplitResult, SplitWriter
from finetune.data.style import FEATURES, SplitStyle
from finetune.data.text_rules import TextRules
from finetune.data.utterance_table import open_manifest
from finetune.data.writers.clip_audio import ClipAudio, Codec, encode_clip, write_clips

log = logging.getLogger(__name__)

Target = Literal["manifest", "nemo", "lhotse", "hf", "shards"]
TARGETS: tuple[Target, ...] = get_args(Target)
SUFFIXES: dict[str, Target] = {".jsonl.gz": "lhotse", ".jsonl": "manifest"}
FOLDERS = ("hf", "shards")  # targets that contain the audio
AHEAD = 64  # clips that are encoded ahead of the writer
UNLIMITED = RowSettings(
    min_duration=0.0, max_duration=inf, max_chars_per_second=inf, special_tokens=(), wordless="keep", text=TextSection()
)


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
        media: folder for audio that is inside the corpus, such as a Parquet file; None puts one beside the output, and
            none is left if the output has its own audio files.
        limits: limits and rules for the rows.
    """

    target: Target | None = None
    codec: Codec = "flac"
    shard_bytes: int = 500_000_000
    split: str = "train"
    audio: Path | None = None
    overwrite: bool = False
    media: Path | None = None
    limits: RowSettings = UNLIMITED


@dataclass(frozen=True)
class ConvertResult:
    """The result of `convert`: the written files, the number of clips, seconds of audio, rows left out, warnings."""

    files: list[Path]
    clips: int
    seconds: float
    dropped: ProblemSummary
    warnings: ProblemSummary


def convert(source: str, out: Path, options: ConvertOptions) -> ConvertResult:
    """Reads a corpus and writes it in another format.

    Args:
        source: a corpus, as in `data.train` of a recipe.
        out: the file or folder to write.
        options: format, codec, sizes.

    Raises:
        DataError: the corpus cannot be read or has no usable row, the output exists, or its format takes no `audio`.
    """
    target = options.target or target_of(out)
    check_output(out, target, options.overwrite)
    if options.audio is not None and target in FOLDERS:
        raise DataError(f"--audio {options.audio}: {target} has the audio in its own files; leave out --audio")
    if options.audio is not None:
        check_output(options.audio, "shards", options.overwrite)
    with TemporaryDirectory(prefix="finetune-convert-") as work, _media_of(out, target, options) as media:
        rows, writer = RowBlocks([(source, read_corpus(source, media))]), SplitWriter(Path(work))
        rules = TextRules(TextSection())
        comparison = RowComparison(rows, rules, writer, inf)
        with WorkerPool(available_cores(), uses_processes(len(rows))) as pool, progress.task("checked", len(rows)):
            for results in BlockChecker(rows, options.limits, pool).results():
                comparison.add_block(results)
                progress.advance(len(results))
        writer.close()
        dropped, warnings = comparison.dropped, comparison.warnings
        if not writer.num_kept:
            raise DataError(f"{source}: 0 of {count(len(rows), 'row')} are usable\n{dropped.text()}")
        style = comparison.style.style(rules)
        _warn_of_languages(source, style)
        result = SplitResult(Path(work), writer.num_kept, writer.seconds, dropped, style)
        _keep_sources(source, out, options, SplitItems(result))
        folder = out if target in FOLDERS else options.audio
        with output_folder(folder) if folder else nullcontext():
            files = write_corpus(out, target, SplitItems(result), options)
    return ConvertResult(files, result.num_kept, result.seconds, dropped, warnings)


def _warn_of_languages(source: str, style: SplitStyle) -> None:
    for item in style.features:
        if item.feature == "unknown language":
            names = ", ".join(f"{name} {number}" for name, number in item.values.items())
            advice = FEATURES[item.feature]
            log.warning(f"{source}: unknown language in {count(item.rows, 'row')}: {names}; {advice}")


@contextmanager
def _media_of(out: Path, target: Target, options: ConvertOptions) -> Iterator[Path]:
    """The folder for audio that is inside the corpus; deleted at the end if the output has its own audio files."""
    name = f"{out.name.partition('.')[0]}_media"
    if options.media or not (target in FOLDERS or options.audio):
        yield options.media or out.with_name(name)
        return
    media = out.with_name(f".{name}.{os.getpid()}.tmp")  # beside the output, because the disk of /tmp can be small
    try:
        yield media
    finally:
        rmtree(media, ignore_errors=True)


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
    with_files: Iterable[Utterance] = utterances
    if options.audio is not None:
        with_files = write_clips(options.audio, encoded(utterances, options.codec))
    elif target != "manifest" and (member := next((item for item in utterances if not is_local_file(item)), None)):
        raise DataError(
            f"{out}: {target} cannot name {member.audio_filepath}; add --audio DIR to write the clips as files"
        )
    {"manifest": write_manifest, "nemo": write_nemo_manifest, "lhotse": write_cuts}[target](out, with_files)
    return [out]


def write_split_shards(folder: Path, splits: Mapping[str, Path], options: ConvertOptions) -> dict[str, list[Path]]:
    """Writes tar shards of prepared splits, each in a folder with the name of the split.

    Args:
        folder: where the folders of the splits are written.
        splits: the manifest of each split.
        options: codec and size.

    Raises:
        DataError: audio cannot be read.
    """
    return {
        split: write_corpus(folder / split, "shards", open_manifest(path), options) for split, path in splits.items()
    }


def encoded(utterances: Iterable[Utterance], codec: Codec) -> Iterator[tuple[Utterance, ClipAudio]]:
    """The utterances with their audio, in order; threads encode ahead."""
    items = iter(utterances)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        while block := list(islice(items, AHEAD)):
            yield from zip(block, pool.map(partial(encode_clip, codec=codec), block), strict=True)


def is_local_file(item: Utterance) -> bool:
    """Whether the audio is a file, not a member of an archive or a URL."""
    return parse_byte_range(item.audio_filepath) is None and not is_url(item.audio_filepath)


def check_output(out: Path, target: Target, overwrite: bool) -> None:
    """Raises DataError if the output is of another kind than the format, or exists."""
    if target in FOLDERS and out.is_file():
        raise DataError(f"{out}: this is a file; name a folder for --to {target}")
    if target not in FOLDERS and out.is_dir():
        raise DataError(f"{out}: this is a folder; name a file for --to {target}, such as {out / 'train.jsonl'}")
    if not overwrite and is_used(out):
        raise DataError(f"{out} already exists; choose another name, or add --overwrite to replace it")


def is_used(path: Path) -> bool:
    """Whether a path is a file, or a folder that is not empty."""
    return any(path.iterdir()) if path.is_dir() else path.exists()


def _keep_sources(source: str, out: Path, options: ConvertOptions, utterances: Iterable[Utterance]) -> None:
    """Raises DataError if writing would replace files that the corpus consists of."""
    if not is_url(source) and Path(source).exists() and Path(source).resolve() == out.resolve():
        raise DataError(f"{out}: this is the corpus itself; choose another output")
    folders = [folder.resolve() for folder in (out, options.audio) if folder and folder.is_dir()]
    checked = set[Path]()
    for item in utterances if folders else ():
        member = parse_byte_range(item.audio_filepath)
        parent = Path(member.file if member else item.audio_filepath).parent
        if parent not in checked and (used := next((f for f in folders if parent.resolve().is_relative_to(f)), None)):
            raise DataError(f"{used}: the corpus has audio here, such as {item.audio_filepath}; choose another folder")
        checked.add(parent)
