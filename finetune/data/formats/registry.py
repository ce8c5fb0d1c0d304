"""The shapes of corpora that are found by their content, in the order in which they are tried."""

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from finetune.core.errors import DataError
from finetune.data.formats import (
    annotations,
    audio_folder,
    gzip_manifest,
    hub,
    kaldi,
    lhotse,
    librispeech,
    metadata_folder,
    nemo_tarred,
    parquet,
    parquet_files,
    tar_shards,
    webdataset,
)
from finetune.data.row import Row
from finetune.data.whole_seconds import warned, warning


@dataclass(frozen=True)
class CorpusFormat:
    """A shape of a corpus.

    Attributes:
        name: as in docs/corpora.md.
        matches: whether a file or folder has this shape; it reads at most the start of a few files.
        read: its rows in a fixed order, with the columns of the source. Paths of audio can be relative to the source.
            The second argument is a folder for audio that must become files. At most one file or shard is in memory.
        exact: the rows have the manifest's keys; their other columns are kept, and their names have no meaning.
        opened_by_check: `finetune check` reads the rows; else only `finetune prepare` does.
        preview: the rows for `finetune check`, if `read` would write files.
    """

    name: str
    matches: Callable[[Path], bool]
    read: Callable[[Path, Path], Iterable[Row]]
    exact: bool = False
    opened_by_check: bool = True
    preview: Callable[[Path], Iterable[Row]] | None = None


FORMATS: tuple[CorpusFormat, ...] = (
    CorpusFormat("Lhotse", lhotse.matches, warning(lhotse.read), exact=True),
    CorpusFormat("tar shards", tar_shards.matches, tar_shards.read),
    CorpusFormat("NeMo, tarred", nemo_tarred.matches, nemo_tarred.read),
    CorpusFormat("compressed manifest", gzip_manifest.matches, gzip_manifest.read),
    CorpusFormat("Kaldi directory", kaldi.matches, warning(kaldi.read), exact=True),
    CorpusFormat("LibriSpeech", librispeech.is_librispeech, librispeech.read_librispeech, exact=True),
    CorpusFormat("MLS", librispeech.is_mls, librispeech.read_mls, exact=True),
    CorpusFormat("WebDataset", webdataset.matches, webdataset.read),
    CorpusFormat("saved data set", hub.is_saved_dataset, hub.read_saved, opened_by_check=False),
    CorpusFormat("metadata folder", metadata_folder.matches, metadata_folder.read, preview=metadata_folder.preview),
    CorpusFormat("Parquet", parquet_files.matches, parquet.read, preview=parquet.preview),
    CorpusFormat("subtitles and annotations", annotations.matches, annotations.read, exact=True),
    CorpusFormat("folder of audio", audio_folder.matches, audio_folder.read, exact=True),
)


def find_format(path: Path) -> CorpusFormat | None:
    """The first format that a file or folder matches."""
    return next((known for known in FORMATS if known.matches(path)), None)


def read_url(url: str, media_dir: Path) -> tuple[Iterator[Row], bool]:
    """The rows of a tar shard, of cuts of Lhotse or of a Parquet file on another machine, and whether they are exact.

    Args:
        url: the URL of the file.
        media_dir: folder for audio that is inside a Parquet file.

    Raises:
        DataError: the URL is of another format.
    """
    name = url.split("?")[0].lower()
    if name.endswith(".tar"):
        return webdataset.read_shard(url), False
    if re.search(r"(^|[/._-])cuts[^/]*\.jsonl(\.gz)?$", name):
        return warned(lhotse.read_cuts(url), url), True
    if name.endswith(".parquet"):
        return parquet.read_url(url, media_dir), False
    raise DataError(
        f"{url}: of URLs, only tar shards (.tar), Parquet files and cuts of Lhotse (cuts.*.jsonl.gz) are read as a "
        "corpus; download it"
    )
