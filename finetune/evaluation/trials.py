"""What evaluate decodes besides the sets: clips without speech, and test clips with keywords in their prompt."""

from dataclasses import asdict, replace
from random import Random
from typing import Any

from finetune.core.config import Recipe
from finetune.data.manifest import Utterance
from finetune.evaluation.records import instruction_of
from finetune.inference.recognize import DecodeOptions, Hypothesis, recognize
from finetune.inference.thresholds import Thresholds
from finetune.metrics.hallucination import Probe, summarize_probes, unsaid
from finetune.metrics.normalizer import normalize
from finetune.metrics.terms import count_terms, summarize
from finetune.metrics.wer import score
from finetune.model.granite import GraniteSpeech

PROBE_TOKENS = 40  # twice what three seconds of speech would need


def options_of(recipe: Recipe, decoder: str) -> DecodeOptions:
    """How a recipe decodes, with another decoder in place of its own where one is compared."""
    decode = recipe.decode
    relaxed = Thresholds(decode.max_entropy, decode.min_probability) if decoder == "relaxed" else None
    return DecodeOptions(
        recipe.model.instruction, decoder != "greedy", decode.batch_seconds, decode.max_new_tokens, relaxed
    )


def decode_utterances(model: GraniteSpeech, utterances: list[Utterance], options: DecodeOptions) -> list[Hypothesis]:
    """`recognize`, with the manifest's `instruction` in place of the recipe's where a clip has one."""
    asked: dict[str, list[int]] = {}
    for index, item in enumerate(utterances):
        asked.setdefault(instruction_of(item, options.instruction), []).append(index)
    heard: dict[int, Hypothesis] = {}
    for instruction, chosen in asked.items():
        found = recognize(model, [utterances[i] for i in chosen], replace(options, instruction=instruction))
        heard |= dict(zip(chosen, found, strict=True))
    return [heard[index] for index in range(len(utterances))]


def probe(model: GraniteSpeech, probes: list[Utterance], options: DecodeOptions) -> dict[str, Any]:
    """What the model writes for clips in which nobody speaks."""
    limit = min(PROBE_TOKENS, options.max_new_tokens)
    heard = recognize(model, probes, replace(options, max_new_tokens=limit))
    found = [Probe(item.id, item.duration, hypothesis.text) for item, hypothesis in zip(probes, heard, strict=True)]
    return {
        **asdict(summarize_probes(found)),
        "truncated": sum(item.truncated for item in heard),
        "outputs": [asdict(item) for item in found],
    }


def keyword_lists(
    model: GraniteSpeech,
    utterances: list[Utterance],
    options: DecodeOptions,
    terms: list[str],
    others: list[str],
    sizes: list[int],
    preset: str,
    seed: int,
) -> list[dict[str, Any]]:
    """Term recall without keywords, and with a clip's own terms among so many distractors in its prompt.

    After Le et al., "Contextualized streaming end-to-end speech recognition with trie-based deep biasing and shallow
    fusion", Interspeech 2021: a clip's own terms are those of the list that were said in it. Distractors are drawn from
    the other terms first, then from `others`, words of training that the clip does not hold.

    Returns:
        One row a size (None is no keyword at all): mean keywords in a prompt, WER, recall and precision of the
        terms, and keywords of prompts that were heard unsaid, per clip.
    """
    references = [item.text for item in utterances]
    said = count_terms(references, references, terms, preset)
    listed = {normalize(term, preset) for term in terms}
    others = [word for word in others if word not in listed]
    rows = []
    for size in (None, *sizes):
        rng = Random(seed)
        prompted = []
        for index, item in enumerate(utterances):
            own = [term for term, times in zip(said.terms, said.said[:, index], strict=True) if times]
            spoken, near = set(normalize(item.text, preset).split()), [term for term in said.terms if term not in own]
            drawn = rng.sample(near, min(size or 0, len(near)))
            missing = (size or 0) - len(drawn)
            far = rng.sample(others, min(missing + len(spoken), len(others)))
            keywords = [*own, *drawn, *[word for word in far if word not in spoken][:missing]]
            rng.shuffle(keywords)
            prompted.append(replace(item, keywords=() if size is None else tuple(keywords)))
        heard = [item.text for item in decode_utterances(model, prompted, options)]
        summary = summarize(count_terms(references, heard, terms, preset).rows())
        false = sum(len(unsaid(a.text, b, a.keywords, preset)) for a, b in zip(prompted, heard, strict=True))
        rows.append(
            {
                "distractors": size,
                "mean_keywords": sum(len(item.keywords) for item in prompted) / len(prompted),
                "wer": score(references, heard, preset).wer,
                "recall": summary.recall,
                "precision": summary.precision,
                "keywords_unsaid_per_clip": false / len(prompted),
            }
        )
    return rows
