"""`data.too_long: segment`: replaces the training corpora by manifests in which long clips are cut."""

import logging
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from finetune.core.config import Recipe
from finetune.core.data_config import CorpusEntry
from finetune.core.errors import DataError
from finetune.core.files import read_json, write_json
from finetune.core.options import SegmentOptions
from finetune.core.run_dir import RunDir
from finetune.core.wording import count
from finetune.curation.recordings import read_recordings
from finetune.curation.segment_corpus import SegmentFiles, segment_recordings
from finetune.data.corpus_state import corpus_state
from finetune.model.granite import SpeechModel, default_device, load_model

log = logging.getLogger(__name__)

Load = Callable[[], SpeechModel]


def segment_long(recipe: Recipe, run: RunDir, load: Load | None = None) -> Recipe:
    """The recipe with other training corpora: their rows, and clips in place of those that are too long.

    The new manifests are in `segments` of the run directory. Those of an unchanged corpus are used again.

    Args:
        recipe: its `data.max_duration` is the longest row that stays as it is, and the longest clip.
        run: its directory.
        load: loads the model; by default the base of the recipe.

    Raises:
        DataError: a corpus cannot be read, or has more unusable rows than `data.max_bad_fraction` allows.
        ModelError: the model cannot be loaded.
    """
    model: SpeechModel | None = None
    options, entries = _options(recipe), list[CorpusEntry]()
    for number, entry in enumerate(recipe.data.train, 1):
        source = entry.path
        folder = run.root / "segments" / f"train-{number}"
        files = SegmentFiles.of(folder)
        state: dict[str, object] = {
            "source": source,
            "state": corpus_state(source, Path(recipe.runs)),
            "base": recipe.model.base,
            "revision": recipe.model.revision,
            **asdict(options),
        }
        if not (files.clips.is_file() and files.summary.is_file() and _recorded(folder) == state):
            model = model or (load or _loader(recipe))()
            recordings = read_recordings(source, None, run.media)
            log.info("segments of %s: %s", source, files.clips)
            summary = segment_recordings(model, recordings, options, files, keep_below=recipe.data.max_duration)
            if summary.unusable > recipe.data.max_bad_fraction * len(recordings):
                raise DataError(
                    f"{source}: {summary.unusable} of {count(len(recordings), 'row')} are unusable, more than "
                    f"data.max_bad_fraction {recipe.data.max_bad_fraction:g} allows; {files.set_aside} has the reasons"
                )
            write_json(folder / "inputs.json", state)
        entries.append(entry.model_copy(update={"path": str(files.clips)}))
    return recipe.model_copy(update={"data": recipe.data.model_copy(update={"train": entries})})


def _options(recipe: Recipe) -> SegmentOptions:
    longest, defaults = recipe.data.max_duration, SegmentOptions()
    shortest = min(defaults.min_duration, longest / 2)
    return SegmentOptions(
        min_duration=shortest,
        max_duration=longest,
        shortest=min(shortest, max(defaults.shortest, recipe.data.min_duration)),
        language=recipe.data.text.language,
    )


def _loader(recipe: Recipe) -> Load:
    return lambda: load_model(recipe.model.base, "auto", default_device(), recipe.model.revision)


def _recorded(folder: Path) -> object:
    """What the files in a folder were made from; None if that is not known."""
    try:
        return read_json(folder / "inputs.json")
    except (OSError, ValueError):
        return None
