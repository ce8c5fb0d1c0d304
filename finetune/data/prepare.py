"""Corpora to audited manifests: reads every split, checks all of it, reports all problems at once."""

import logging
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from itertools import product

from finetune.core.config import Recipe
from finetune.core.errors import DataError
from finetune.core.files import sha256_file, write_json
from finetune.core.run_dir import RunDir
from finetune.data.audit import Problem, audit, leaks, report
from finetune.data.corpora import count_rows, read_corpus
from finetune.data.manifest import Utterance, unique_id, write_manifest
from finetune.metrics.terms import read_terms, term_recall

log = logging.getLogger(__name__)

SPLITS = ("train", "replay", "valid", "test", "canary")
SPECIAL_TOKENS = ("<|audio|>", "<|end_of_text|>", "<|pad|>", "<|start_of_role|>", "<|end_of_role|>")


@dataclass(frozen=True)
class PrepareResult:
    """By split: utterances kept, hours of audio, rows dropped, SHA-256 of the manifest."""

    kept: dict[str, int]
    hours: dict[str, float]
    dropped: dict[str, int]
    hashes: dict[str, str]
    seconds: float


def preview_corpora(recipe: Recipe) -> Iterator[str]:
    """A line for each corpus of a recipe; no audio is opened and nothing written.

    Raises:
        DataError: at the end, with all that cannot be read.
    """
    faults = []
    for split in SPLITS:
        for source in getattr(recipe.data, split):
            try:
                found = count_rows(source)
            except DataError as error:
                faults.append(f"data.{split}: {error}")
                continue
            yield f"{split:6} {f'{found[0]:,} rows' if found else 'not opened':>12}  {source}"
            if found and found[1] > recipe.data.max_bad_fraction * found[0]:
                faults.append(f"data.{split}: {source}: the audio of {found[1]} of {found[0]} rows is not there")
    if recipe.data.terms:
        try:
            yield f"terms  {f'{len(read_terms(recipe.data.terms)):,} terms':>12}  {recipe.data.terms}"
        except DataError as error:
            faults.append(f"data.terms: {error}")
    if faults:
        raise DataError("\n".join(faults))


def prepare(recipe: Recipe, run: RunDir) -> PrepareResult:
    """Writes `manifests/<split>.jsonl` and `manifests/problems.json`.

    Raises:
        DataError: a source cannot be read, a split is empty, too large a share of its rows is bad, or a sentence
            of train or replay stands in valid, test or canary (unless the recipe allows it); a term that the
            normalizer empties.
    """
    started = time.monotonic()
    settings = recipe.data
    if settings.terms:  # looked at now: evaluate reads it only after hours of training
        term_recall([], [], read_terms(settings.terms), recipe.evaluate.normalizer)
    splits: dict[str, list[Utterance]] = {}
    dropped: dict[str, list[Problem]] = {}
    warnings: dict[str, list[Problem]] = {}
    for split in SPLITS:
        sources: list[str] = getattr(settings, split)
        if not sources:
            continue
        rows = [
            replace(row, values={"corpus": source, **row.values}) if len(sources) > 1 else row
            for source in sources
            for row in read_corpus(source, run.media)
        ]  # evaluate scores each by itself
        checked = audit(
            rows,
            min_duration=settings.min_duration,
            max_duration=settings.max_duration,
            max_chars_per_second=settings.max_chars_per_second,
            special_tokens=SPECIAL_TOKENS,
            workers=2,
        )
        splits[split] = [_styled(item, settings.lowercase) for item in checked.kept]
        dropped[split], warnings[split] = checked.dropped, checked.warnings
        log.info(
            "%-6s %5d clips, %s%s",
            split,
            len(checked.kept),
            _length(sum(item.duration for item in checked.kept)),
            f"; {len(checked.dropped)} of {len(rows)} dropped" if checked.dropped else "",
        )
        if checked.dropped or checked.warnings:
            log.info(report([*checked.dropped, *checked.warnings]))
        if not checked.kept:
            raise DataError(f"data.{split}: no usable clip is left of {len(rows)}")
        if len(checked.dropped) > settings.max_bad_fraction * len(rows):
            raise DataError(
                f"data.{split}: {len(checked.dropped)} of {len(rows)} rows are unusable, more than "
                f"data.max_bad_fraction {settings.max_bad_fraction:g} allows; mend them or raise it"
            )
    if "replay" in splits:
        splits["replay"], warnings["replay"] = _told_apart(splits["replay"], splits["train"], warnings["replay"])
    leaked: dict[str, list[Problem]] = {"valid": [], "test": [], "canary": []}
    copied = []
    for heard, split in product(("train", "replay"), leaked):
        found = [
            replace(problem, kind=problem.kind.replace("in train", f"in {heard}"))
            for problem in leaks(splits.get(heard, []), splits.get(split, []))
        ]
        leaked[split] += found
        if same := [problem for problem in found if not problem.kind.startswith("speaker")]:
            log.info(report(same))
            clips = len({problem.id for problem in same})
            copied.append(f"data.{split}: {clips} of its clips stand in data.{heard} too")
    if copied and not settings.allow_leaks:
        raise DataError(f"{'; '.join(copied)}, so its score would flatter; remove them, or set data.allow_leaks: true")
    for split, utterances in splits.items():
        write_manifest(run.manifest(split), utterances)
    write_json(
        run.problems,
        {
            split: {
                "dropped": [asdict(p) for p in dropped[split]],
                "warnings": [asdict(p) for p in [*warnings[split], *leaked.get(split, [])]],
            }
            for split in splits
        },
    )
    return PrepareResult(
        {split: len(items) for split, items in splits.items()},
        {split: round(sum(item.duration for item in items) / 3600, 4) for split, items in splits.items()},
        {split: len(items) for split, items in dropped.items()},
        {split: sha256_file(run.manifest(split)) for split in splits},
        round(time.monotonic() - started, 1),
    )


def _told_apart(
    replay: list[Utterance], train: list[Utterance], warnings: list[Problem]
) -> tuple[list[Utterance], list[Problem]]:
    """Replay with other ids where train has the same, for an epoch hears both; and its warnings, with these."""
    theirs = {item.id for item in train}
    taken, kept, renamed = theirs | {item.id for item in replay}, [], []
    for item in replay:
        if item.id in theirs:
            name = unique_id(item.audio_filepath, item.offset, taken)
            taken.add(name)
            renamed.append(Problem("id changed", name, item.audio_filepath, f"{item.id!r} is an id of data.train too"))
            item = replace(item, id=name)
        kept.append(item)
    if renamed:
        log.info(report(renamed))
    return kept, [*warnings, *renamed]


def _length(seconds: float) -> str:
    for unit, size in (("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.1f} s"


def _styled(item: Utterance, lowercase: bool) -> Utterance:
    return replace(item, text=item.text.lower()) if lowercase else item
