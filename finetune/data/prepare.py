"""Prepares the data of a recipe: reads and checks every split, reports all problems, writes the manifests."""

import logging
import time
from dataclasses import asdict, dataclass, replace
from itertools import product
from pathlib import Path

from finetune.core.config import DataSection, Recipe
from finetune.core.errors import DataError
from finetune.core.files import sha256_file, write_json
from finetune.core.run_dir import RunDir
from finetune.data.audio_files import record_audio_files
from finetune.data.audit import Audit, audit
from finetune.data.corpora import read_corpus
from finetune.data.leaks import find_leaks, is_refused
from finetune.data.manifest import unique_id, write_manifest
from finetune.data.problems import Problem, format_problems
from finetune.data.splits import SCORED_SPLITS, SPLITS, TRAINING_SPLITS
from finetune.data.style import BASE_STYLE, SplitStyle, format_style, split_style, write_style
from finetune.data.text_rules import TextRules
from finetune.data.unused_settings import unused_settings
from finetune.metrics.terms import notes_on_signs, read_terms, term_recall

log = logging.getLogger(__name__)

_TOKEN_NAMES = (  # of Granite's tokenizer
    "audio end_of_text pad unk start_of_role end_of_role tool_call start_of_cite end_of_cite start_of_plugin "
    "end_of_plugin fim_prefix fim_middle fim_suffix fim_pad filename reponame unused_1"
)
SPECIAL_TOKENS = tuple(f"<|{name}|>" for name in _TOKEN_NAMES.split())


@dataclass(frozen=True)
class PrepareResult:
    """By split: utterances kept, hours of audio, rows dropped, SHA-256 of the manifest."""

    kept: dict[str, int]
    hours: dict[str, float]
    dropped: dict[str, int]
    hashes: dict[str, str]
    seconds: float


def prepare(recipe: Recipe, run: RunDir) -> PrepareResult:
    """Writes `manifests/<split>.jsonl`, `manifests/problems.json` and `manifests/style.json`.

    Raises:
        DataError: a source cannot be read; a split has no usable row or too many bad rows; audio of train or
            replay is also in valid, test or canary, and the recipe does not allow it; the normalizer
            removes a complete term.
    """
    started, started_at = time.monotonic(), time.time_ns()
    if recipe.data.terms:  # checked here, because evaluate reads the terms only after hours of training
        term_recall([], [], read_terms(recipe.data.terms), recipe.evaluate.normalizer)
    audits, styles = _read(recipe.data, run.media)
    audits = _check_leaks(audits, recipe.data.allow_leaks)
    if recipe.data.terms and "test" in audits:
        references = [item.text for item in audits["test"].kept]
        for note in notes_on_signs(read_terms(recipe.data.terms), recipe.evaluate.normalizer, references):
            log.info("terms  %s", note)
    for line in unused_settings(recipe, {split: result.kept for split, result in audits.items()}):
        log.warning(line)
    _write(audits, run)
    write_style(run.style, styles)
    record_audio_files(run, {split: result.kept for split, result in audits.items()}, started_at)
    return PrepareResult(
        kept={split: len(result.kept) for split, result in audits.items()},
        hours={split: round(_seconds(result) / 3600, 4) for split, result in audits.items()},
        dropped={split: len(result.dropped) for split, result in audits.items()},
        hashes={split: sha256_file(run.manifest(split)) for split in audits},
        seconds=round(time.monotonic() - started, 1),
    )


def _read(data: DataSection, media: Path) -> tuple[dict[str, Audit], dict[str, SplitStyle]]:
    """Every split of the recipe, audited, and its style; ids are unique over train and replay."""
    audits, styles = dict[str, Audit](), dict[str, SplitStyle]()
    for split in SPLITS:
        if getattr(data, split):
            audits[split], styles[split] = _read_split(split, data, media)
    if "replay" in audits:
        audits["replay"] = _rename_shared_ids(audits["replay"], audits["train"])
    return audits, styles


def _read_split(split: str, data: DataSection, media: Path) -> tuple[Audit, SplitStyle]:
    """The rows of all corpora of a split, audited, and the style of their transcripts.

    With several corpora, each row records its corpus, for evaluate.
    """
    rules = TextRules(data.text)
    sources: list[str] = getattr(data, split)
    rows = [
        replace(row, values={"corpus": source, **row.values}) if len(sources) > 1 else row
        for source in sources
        for row in read_corpus(source, media)
    ]
    result = audit(
        rows,
        min_duration=data.min_duration,
        max_duration=data.max_duration,
        max_chars_per_second=data.max_chars_per_second,
        special_tokens=SPECIAL_TOKENS,
        workers=2,
        wordless="keep empty" if split in SCORED_SPLITS else "drop",
        rewrite=rules,
        max_dropped=data.max_bad_fraction * len(rows),
    )
    num_dropped = len(result.dropped)
    dropped = f"; {num_dropped} of {len(rows)} rows dropped" if num_dropped else ""
    log.info("%-6s %5d utterances, %s%s", split, len(result.kept), _format_duration(_seconds(result)), dropped)
    if result.dropped or result.warnings:
        log.info(format_problems([*result.dropped, *result.warnings]))
    if not result.kept:
        raise DataError(f"data.{split}: 0 of {len(rows)} rows are usable; fix the problems above")
    if num_dropped > data.max_bad_fraction * len(rows):
        raise DataError(
            f"data.{split}: {num_dropped} of {len(rows)} rows are unusable, more than data.max_bad_fraction "
            f"{data.max_bad_fraction:g} allows; fix the rows or raise data.max_bad_fraction"
        )
    style = split_style(result.kept, rules)
    if lines := format_style(split, style, data.text.language):
        log.info("style (%s):\n%s", BASE_STYLE, "\n".join(lines))
    return result, style


def _rename_shared_ids(replay: Audit, train: Audit) -> Audit:
    """The replay split with a new id for each id that train also has, because an epoch contains both splits."""
    train_ids = {item.id for item in train.kept}
    used_ids, kept, renamed = train_ids | {item.id for item in replay.kept}, [], []
    for item in replay.kept:
        if item.id in train_ids:
            new_id = unique_id(item.audio_filepath, item.offset, used_ids, item.channel)
            used_ids.add(new_id)
            detail = f"data.train has the id {item.id!r} too"
            renamed.append(Problem("id changed", new_id, item.audio_filepath, detail))
            item = replace(item, id=new_id)
        kept.append(item)
    if renamed:
        log.info(format_problems(renamed))
    return replace(replay, kept=kept, warnings=[*replay.warnings, *renamed])


def _check_leaks(audits: dict[str, Audit], allow_leaks: bool) -> dict[str, Audit]:
    """The splits, with a warning for each leak into a scored split from a training split, and of audio from valid.

    Raises:
        DataError: audio of a training split leaks, and `allow_leaks` is false.
    """
    audits, errors = dict(audits), []
    pairs = [*product(TRAINING_SPLITS, SCORED_SPLITS), ("valid", "test"), ("valid", "canary")]
    for source, scored in (pair for pair in pairs if audits.keys() >= {*pair}):
        leaks = find_leaks(audits[source].kept, audits[scored].kept, source)
        copies = [leak for leak in leaks if is_refused(leak)]
        if source == "valid":  # valid chooses the adapter: only its audio must not be scored again
            leaks = copies
        elif copies:
            errors.append(f"data.{scored}: the audio of {len(copies)} of its utterances is also in data.{source}")
        audits[scored] = replace(audits[scored], warnings=[*audits[scored].warnings, *leaks])
        if shown := [leak for leak in leaks if not leak.kind.startswith("speaker")]:  # the report names speakers
            log.info("%s: %s", scored, format_problems(shown))
    if errors and not allow_leaks:
        raise DataError(f"{'; '.join(errors)}: the scores would be too good. Remove it or set data.allow_leaks: true")
    return audits


def _write(audits: dict[str, Audit], run: RunDir) -> None:
    for split, result in audits.items():
        write_manifest(run.manifest(split), result.kept)
    problems = {
        split: {
            "dropped": [asdict(problem) for problem in result.dropped],
            "warnings": [asdict(problem) for problem in result.warnings],
        }
        for split, result in audits.items()
    }
    write_json(run.problems, problems)


def _seconds(result: Audit) -> float:
    return sum(item.duration for item in result.kept)


def _format_duration(seconds: float) -> str:
    for unit, size in (("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.1f} s"
