"""Divides test and canary utterances into the sets that are scored separately."""

from collections.abc import Mapping, Sequence

from finetune.data.manifest import Utterance
from finetune.data.normalizer_choice import scored_in_characters
from finetune.evaluation.synthetic import is_synthetic
from finetune.evaluation.utterances import languages_of
from finetune.metrics.task_scores import task_name

Indices = list[int]


def scoring_sets(splits: Mapping[str, Sequence[Utterance]]) -> dict[str, tuple[str, Indices]]:
    """The sets by name: the split of a set, and the indices of its utterances in the split.

    No set has transcriptions and translations. Test and canary are sets of their transcriptions, or of their
    translations if they have nothing else. Other translations are a set for each pair of languages. Japanese and
    Chinese utterances among others are a set of their own (`normalizer_for` scores it in characters). If the canary
    has several corpora, each corpus is a set too. If test has recorded and synthetic clips, both are sets too.
    """
    sets = {}
    for split, utterances in splits.items():
        transcripts = transcriptions(utterances)
        kinds = scored_in_characters([utterances[index] for index in transcripts])
        spaced = [index for index, characters in zip(transcripts, kinds, strict=True) if not characters]
        sets[split] = (split, spaced or transcripts or list(range(len(utterances))))
        if split == "canary":
            sets |= {f"{split}: {name}": (split, indices) for name, indices in _corpora(utterances).items()}
        parts = {task_name(*key): indices for key, indices in by_task(utterances).items() if key[1]}
        japanese = sorted({*transcripts} - {*spaced}) if spaced else []
        for name, indices in (parts | {"Japanese": japanese}).items():
            if indices and (split, indices) not in sets.values():
                sets[f"{split}: {name}"] = (split, indices)
        made = [index for index in sets[split][1] if is_synthetic(utterances[index])]
        if split == "test" and 0 < len(made) < len(sets[split][1]):
            real = sorted({*sets[split][1]} - {*made})
            sets |= {"test: real": (split, real), "test: synthetic": (split, made)}
    return sets


def transcriptions(utterances: Sequence[Utterance]) -> Indices:
    """Indices of the utterances that are not translated."""
    return [index for index, item in enumerate(utterances) if not item.is_translation]


def by_task(utterances: Sequence[Utterance]) -> dict[tuple[str, str], Indices]:
    """Indices by language and target language ("" for a transcription): transcriptions first, in order of language."""
    tasks: dict[tuple[str, str], Indices] = {}
    for index, item in enumerate(utterances):
        tasks.setdefault(languages_of(item), []).append(index)
    return dict(sorted(tasks.items(), key=lambda entry: (bool(entry[0][1]), entry[0])))


def _corpora(utterances: Sequence[Utterance]) -> dict[str, Indices]:
    """Indices by corpus if there are several: the transcriptions of a corpus; if it has none, its translations."""
    corpora: dict[str, Indices] = {}
    for index, item in enumerate(utterances):
        corpora.setdefault(str(item.extra.get("corpus", "")), []).append(index)
    if len(corpora) < 2:
        return {}
    return {
        name: [index for index in indices if not utterances[index].is_translation] or indices
        for name, indices in corpora.items()
    }
