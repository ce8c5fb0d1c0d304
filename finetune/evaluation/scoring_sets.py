"""Divides test and canary utterances into the sets that are scored separately."""

from collections.abc import Mapping, Sequence

from finetune.data.manifest import Utterance
from finetune.data.normalizer_choice import is_japanese


def scoring_sets(splits: Mapping[str, Sequence[Utterance]]) -> dict[str, tuple[str, list[int]]]:
    """The sets by name: the split of a set, and the indices of its utterances in the split.

    Test and canary are sets without their translations. If the canary has several corpora, each corpus is a set too.
    If there are Japanese utterances among other languages, they are a set of their own (`normalizer_for` scores it).
    """
    sets = {}
    for split, utterances in splits.items():
        corpora: dict[str, list[int]] = {}
        for index, item in enumerate(utterances):
            corpora.setdefault(str(item.extra.get("corpus", "")), []).append(index)
        transcripts = [index for index, item in enumerate(utterances) if not item.is_translation]
        spaced = [index for index in transcripts if not is_japanese(utterances[index])]
        sets[split] = (split, spaced or transcripts or list(range(len(utterances))))
        if split == "canary" and len(corpora) > 1:
            sets |= {f"{split}: {corpus}": (split, indices) for corpus, indices in corpora.items()}
        japanese = [index for index in transcripts if spaced and is_japanese(utterances[index])]
        if japanese and not any(japanese == indices for _, indices in sets.values()):
            sets[f"{split}: Japanese"] = (split, japanese)
    return sets
