"""Any systems on the same clips: quality and speed side by side, each tested against the first."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from finetune.core.errors import DataError, RecipeError
from finetune.core.files import sha256_file, write_json
from finetune.core.run_dir import RunDir
from finetune.data.manifest import Utterance
from finetune.evaluation.scoring_sets import is_japanese
from finetune.evaluation.systems import KINDS, Answer, System, run_system, system_of
from finetune.evaluation.utterances import clip_of, read_utterances
from finetune.metrics.conditions import Condition
from finetune.metrics.normalizer import UNSPACED, normalize
from finetune.metrics.scorecard import Clip, ScoringOptions, SystemOutput, comparison, scorecard
from finetune.metrics.significance import CONFIDENCE, holm
from finetune.metrics.terms import column_terms, read_terms, term_recall

log = logging.getLogger(__name__)

SCHEMA = 1


@dataclass(frozen=True)
class CompareResult:
    """By system: scores, what stands behind them, and how it was heard. By system but the first: the comparison.

    `notes` is what a reader must know, `fired` the conditions that hold, each with its system and figures.
    """

    manifest: str
    manifest_sha256: str
    settings: dict[str, Any]
    clips: int
    words: int
    systems: dict[str, dict[str, Any]]
    comparisons: dict[str, dict[str, Any]]
    notes: list[str]
    fired: list[str]


def compare(
    names: Sequence[str],
    manifest: str | None,
    setting: ScoringOptions,
    terms: str | None,
    instruction: str,
    conditions: Sequence[Condition],
) -> CompareResult:
    """Hears, scores and tests; every system on the same clips under the same normalizer.

    Clips in which a system failed (an endpoint that gave no text) are left out for all, which is said.

    Args:
        names: two or more systems (`systems.system_of`); the others are compared with the first.
        manifest: the clips; None is the test set of the first run directory among the systems.
        setting: its terms are ignored.
        terms: a file of them; None is the manifest's columns `terms` and `keywords`.
        instruction: of clips whose manifest has none; for the flag of an echoed one.
        conditions: what must not be.

    Raises:
        RecipeError: fewer than two systems, one twice, no manifest; a condition on terms without any.
        DataError: clips, terms or hypotheses that cannot be read or do not fit each other.
        ModelError: a system that cannot be used.
    """
    if len(names) < 2 or len({*names}) < len(names):
        raise RecipeError("compare wants two or more systems, each once; the others are compared with the first")
    systems = [system_of(name) for name in names]
    path = manifest or _manifest_of(systems)
    every = read_utterances(Path(path))
    spoken = [item for item in every if not item.extra.get("target_language")]
    if not spoken:
        raise DataError(f"{path}: holds translations only, whose words are no errors of hearing")
    listed = (
        read_terms(terms)
        if terms
        else column_terms(
            [cell for item in spoken for cell in (item.keywords, item.extra.get("terms"))], setting.preset
        )
    )
    term_recall([], [], listed, setting.preset)  # looked at before anything is decoded
    if not listed and any(condition.metric == "recall" for condition in conditions):
        raise RecipeError("--fail-if recall: there are no terms; give --terms FILE, or the manifest a column `terms`")
    setting = replace(setting, terms=tuple(listed))
    answers: dict[str, Answer] = {}
    for system in sorted(systems, key=lambda item: KINDS.index(item.kind)):
        answers[system.name] = run_system(system, spoken)
    kept = [index for index in range(len(spoken)) if all(answers[name].heard[index] is not None for name in names)]
    if not kept:
        raise DataError("no clip was transcribed by all of the systems")
    clips = [clip_of(spoken[index], instruction, False) for index in kept]
    heard = {name: [item for index in kept if (item := answers[name].heard[index])] for name in names}
    entries = {
        system.name: {
            "kind": system.kind,
            "about": answers[system.name].about,
            "failures": answers[system.name].failures,
            **_scores(clips, heard[system.name], setting),
        }
        for system in systems
    }
    comparisons = _comparisons(clips, heard, setting)
    rates = {
        name: {"wer": entry["wer"], "cer": entry["cer"], "recall": (entry.get("terms") or {}).get("recall")}
        for name, entry in entries.items()
    }
    fired = [
        f"{name}: {condition.text} ({condition.metric} {100 * (rates[name][condition.metric] or 0):.2f}, base "
        f"{100 * (rates[names[0]][condition.metric] or 0):.2f})"
        for condition in conditions
        for name in names[1:]
        if condition.fires(rates[name], rates[names[0]])
    ]
    notes = _notes(spoken, len(every), len(kept), answers, systems, clips, setting)
    return CompareResult(
        str(path),
        sha256_file(path),
        {"normalizer": setting.preset, "replicas": setting.replicas, "seed": setting.seed, "terms": len(listed)},
        len(clips),
        entries[names[0]]["reference_words"],
        entries,
        comparisons,
        notes,
        fired,
    )


def write_comparison(path: Path, result: CompareResult) -> None:
    """Raises DataError where the file cannot be written."""
    try:
        write_json(path, {"schema": SCHEMA, **vars(result)})
    except OSError as error:
        raise DataError(f"{path}: cannot be written ({error.strerror})") from error


def _manifest_of(systems: Sequence[System]) -> str:
    run = next((RunDir(system.source) for system in systems if system.kind == "run"), None)
    if run is None:
        raise RecipeError("which clips? Give --manifest FILE (a run directory among the systems would bring its own)")
    return str(run.manifest("test"))


def _scores(clips: Sequence[Clip], heard: Sequence[SystemOutput], setting: ScoringOptions) -> dict[str, Any]:
    """As `scorecard`, with the terms together: what training has seen is not known here."""
    entry, details = scorecard(clips, heard, setting)
    del entry["frequency"]
    if setting.terms:
        entry["terms"] = entry["terms"]["unseen"]
    return {**entry, "details": details}


def _comparisons(
    clips: Sequence[Clip], heard: dict[str, list[SystemOutput]], setting: ScoringOptions
) -> dict[str, dict[str, Any]]:
    """Each system against the first; p values are adjusted for how many these are, and the verdict follows them."""
    first, *others = heard
    found = {name: comparison(clips, heard[first], heard[name], setting) for name in others}
    for (name, row), adjusted in zip(found.items(), holm([row["p_value"] for row in found.values()]), strict=True):
        proven = "better" if row["difference"] < 0 else "worse"
        found[name] = {**row, "p_holm": adjusted, "verdict": proven if adjusted < 1 - CONFIDENCE else "not proven"}
    return found


def _notes(
    spoken: Sequence[Utterance],
    every: int,
    kept: int,
    answers: dict[str, Answer],
    systems: Sequence[System],
    clips: Sequence[Clip],
    setting: ScoringOptions,
) -> list[str]:
    notes = []
    if every > len(spoken):
        notes.append(f"{every - len(spoken)} translations are left out")
    for name, answer in answers.items():
        if answer.failures:
            clip, why = next(iter(answer.failures.items()))
            notes.append(f"{name} failed on {len(answer.failures)} of {len(spoken)} clips, the first {clip!r}: {why}")
        other = [
            clip.id
            for clip, text in zip(spoken, answer.references, strict=False)
            if text and normalize(text, setting.preset) != normalize(clip.text, setting.preset)
        ]
        if other:
            notes.append(
                f"{name} has another reference than the manifest for {len(other)} clips, such as "
                f"{other[0]!r}; the manifest's is scored"
            )
    if kept < len(spoken):
        notes.append(f"{len(spoken) - kept} clips are left out for all systems, because one failed on them")
    if setting.preset not in UNSPACED and (japanese := sum(map(is_japanese, spoken))):
        notes.append(
            f"{japanese} clips are Japanese, which {setting.preset} counts in words that it has not: score "
            "them by themselves with --normalizer ja-cer@1"
        )
    if any(system.kind == "model" for system in systems) and any(clip.keywords for clip in clips):
        notes.append("models decoded now were told the manifest's keywords, other systems were not")
    return notes
