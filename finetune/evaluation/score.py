"""A model as it is, on each test set by itself, as leaderboards score: WER of each, their mean, speed."""

import hashlib
import json
import logging
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from finetune.core.config import Recipe
from finetune.core.errors import DataError
from finetune.core.files import read_json, read_jsonl, sha256_file, write_json
from finetune.core.run_dir import RunDir
from finetune.data.cells import clean_text
from finetune.data.corpora import read_corpus
from finetune.data.hub import Row
from finetune.data.manifest import Utterance
from finetune.evaluation.decode import decode_utterances, system_output
from finetune.evaluation.scoring_sets import normalizer_for
from finetune.evaluation.utterance_rows import hypothesis_row
from finetune.evaluation.utterances import audited_utterances, clip_of
from finetune.inference.recognize import decoding_summary
from finetune.metrics.normalizer import normalize
from finetune.metrics.sclite import write_rows
from finetune.metrics.scorecard import ScoringOptions, SystemOutput, scorecard
from finetune.model.granite import GraniteSpeech, load_model

log = logging.getLogger(__name__)

SCHEMA = 1
UNSCORED = ("", "ignore time segment in scoring")  # normalized references that the Open ASR Leaderboard leaves out


@dataclass(frozen=True)
class ScoreResult:
    """By set: the scorecard, and how many clips were left out for an empty normalized reference (`unscored`).

    `macro_wer` is the mean over sets of their WER rounded to two decimals of a per cent, as the leaderboard has it;
    `rtfx` is all audio over all seconds of recognition (features, encoder, decoding; not the reading of files).
    """

    sets: dict[str, dict[str, Any]]
    macro_wer: float
    rtfx: float | None


def score(recipe: Recipe, run: RunDir) -> ScoreResult:
    """Decodes each corpus of `data.test` with `model.base`; one that was decoded so before is only scored again.

    Writes `score/SET.jsonl` in the leaderboard's keys (raw text; `time` is the clip's share of its batch) and
    `score/scores.json`. Of `data` nothing but `test` is read: no clip is dropped for its length, no text changed.

    Raises:
        DataError: a corpus cannot be read, or has a clip that cannot be used (all are named).
        ModelError: the model cannot be loaded.
    """
    evaluate, model = recipe.evaluate, None
    setting = ScoringOptions(evaluate.normalizer, evaluate.replicas, recipe.seed, (), frozenset(), {})
    sets = {}
    for name, source in _names(recipe.data.test).items():
        clips, unscored = _clips(source, run.media / name, evaluate.normalizer)
        log.info("%s: %d clips%s", name, len(clips), f", {unscored} without a reference" if unscored else "")
        heard = _kept(run, name, _inputs(recipe, source), clips)
        if heard is None:
            model = model or _load(recipe)
            heard = _decode(model, recipe, clips, run, name, _inputs(recipe, source))
        entry, _ = scorecard(
            [clip_of(item, recipe.model.instruction, False) for item in clips],
            heard,
            replace(setting, preset=normalizer_for(clips, setting.preset)),
        )
        del entry["frequency"]  # nothing was trained
        sets[name] = {"source": source, "unscored": unscored, **entry}
    audio, seconds = (sum(entry[key] for entry in sets.values()) for key in ("audio_seconds", "seconds"))
    macro = sum(round(100 * entry["wer"], 2) for entry in sets.values()) / len(sets) / 100
    result = ScoreResult(sets, macro, audio / seconds if seconds else None)
    write_json(run.score / "scores.json", {"schema": SCHEMA, "settings": _settings(recipe), **vars(result)})
    return result


def score_table(result: ScoreResult) -> list[str]:
    """A row a set, and the mean of all."""
    last = f"mean of {len(result.sets)} sets (macro)"
    width = max(map(len, [*result.sets, last]))
    lines = ["", f"{'':{width}}{'clips':>8}{'left out':>10}{'words':>9}{'WER (95 %)':>24}{'CER':>8}{'RTFx':>9}"]
    for name, entry in result.sets.items():
        low, high = (100 * entry["interval"][end] for end in ("low", "high"))
        wer = f"{100 * entry['wer']:.2f} ({low:.2f} to {high:.2f})"
        lines.append(
            f"{name:{width}}{entry['utterances']:8}{entry['unscored']:10}{entry['reference_words']:9}{wer:>24}"
            f"{100 * entry['cer']:8.2f}{entry['rtfx'] or 0:9.2f}"
        )
    return [*lines, f"{last:{width}}{'':27}{100 * result.macro_wer:>8.2f}{'':24}{result.rtfx or 0:9.2f}"]


def _names(sources: Sequence[str]) -> dict[str, str]:
    """A short name for each source, fit for a file: `ami.test` for `hf:NAME:ami:test`, else the file's or folder's."""
    found: dict[str, str] = {}
    for source in sources:
        parts = source.split(":")
        name = ".".join(parts[2:] if len(parts) > 3 else parts[1:]) if source.startswith("hf:") else Path(source).stem
        name = re.sub(r"[^\w.-]+", "_", name)
        same = sum(known == name or known.startswith(f"{name}-") for known in found)
        found[f"{name}-{same + 1}" if same else name] = source
    return found


def _settings(recipe: Recipe) -> dict[str, Any]:
    content = recipe.model_dump(mode="json")
    return {key: content[key] for key in ("model", "decode", "evaluate", "seed")}


def _inputs(recipe: Recipe, source: str) -> str:
    """A hash of all that a set's hypotheses depend on; of a local model and corpus, of their files."""
    files = [Path(source), *sorted(Path(recipe.model.base).glob("*.safetensors"))]
    content = recipe.model_dump(mode="json")
    known = [source, content["model"], content["decode"], *(sha256_file(path) for path in files if path.is_file())]
    return hashlib.sha256(json.dumps(known, sort_keys=True).encode()).hexdigest()


def _clips(source: str, media: Path, preset: str) -> tuple[list[Utterance], int]:
    """Every clip of a corpus that has a reference, and how many have none."""
    rows = read_corpus(source, media)
    scored = [row for row in rows if normalize(clean_text(row.values.get("text")), preset) not in UNSCORED]
    if not scored:
        raise DataError(f"{source}: no clip has a reference that normalizer {preset} leaves anything of")
    return audited_utterances(_told_apart(scored), source), len(rows) - len(scored)


def _told_apart(rows: list[Row]) -> list[Row]:
    """Rows without their ids, where these are not unique; they are made from the files' names then."""
    counts = Counter(str(row.values.get("id") or "") for row in rows)
    if counts.most_common(1)[0][1] == 1:
        return rows
    return [replace(row, values={key: value for key, value in row.values.items() if key != "id"}) for row in rows]


def _load(recipe: Recipe) -> GraniteSpeech:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return load_model(recipe.model.base, recipe.model.dtype, device, recipe.model.revision)


def _decode(
    model: GraniteSpeech, recipe: Recipe, clips: list[Utterance], run: RunDir, name: str, inputs: str
) -> list[SystemOutput]:
    found = decode_utterances(model, clips, recipe.model.instruction, recipe.decode)
    write_rows(run.score / f"{name}.jsonl", map(hypothesis_row, clips, found))
    write_json(run.score / f"{name}.done.json", {"inputs": inputs, "decoding": decoding_summary(found)})
    return [system_output(item) for item in found]


def _kept(run: RunDir, name: str, inputs: str, clips: list[Utterance]) -> list[SystemOutput] | None:
    """What the same model has heard in these clips before; None where it has not."""
    record = run.score / f"{name}.done.json"
    if not record.is_file() or read_json(record)["inputs"] != inputs:
        return None
    rows = {row["id"]: row for row in read_jsonl(run.score / f"{name}.jsonl")}
    if any(item.id not in rows for item in clips):  # another normalizer leaves more references
        return None
    return [SystemOutput(row["pred_text"], row["time"], row["truncated"]) for row in (rows[item.id] for item in clips)]
