"""Finds settings of a recipe that have no effect on its data, such as a group column that no row has."""

import difflib
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import islice

from finetune.core.config import EvaluateSection, Recipe
from finetune.core.errors import DataError
from finetune.core.model_limits import read_limits
from finetune.core.wording import count
from finetune.data.cells import cell_keywords, cell_speaker, cell_text, clean_text
from finetune.data.manifest import KEYS, PROMPT_COLUMNS, Utterance
from finetune.data.normalizer_choice import normalizer_of_terms
from finetune.data.row import Row
from finetune.data.row_checks import prompt_columns, stated_weight
from finetune.metrics.hallucination import false_keywords
from finetune.metrics.scorecard import BINS
from finetune.metrics.terms import column_terms, read_terms, term_recall

DEFAULT_GROUPS = EvaluateSection().groups
BATCH = 2048  # transcripts
ROW_COLUMNS = (
    "speaker",
    "language",
    "channel",
    *PROMPT_COLUMNS,
)  # columns of the manifest's own keys that can be groups


def text_of_row(row: Row) -> Utterance:
    """The utterance of a row without its audio, for checks of the text; a row without an id has its position."""
    values = row.values
    item = Utterance(
        id=cell_text(values.get("id")) or row.where,
        audio_filepath="",
        duration=0.0,
        text=clean_text(values.get("text")),
        language=cell_text(values.get("language")),
        speaker=cell_speaker(values.get("speaker")),
        keywords=tuple(cell_keywords(values.get("keywords"))),
        extra={key: value for key, value in values.items() if key not in KEYS or key == "channel"},
        sampling_weight=stated_weight(row),
    )
    return replace(item, **prompt_columns(row))


def unused_settings(recipe: Recipe, test: Sequence[Utterance], with_keywords: Collection[str]) -> Iterator[str]:
    """A line for each setting without effect, and for keywords that the model cannot use.

    Args:
        recipe: the recipe.
        test: the utterances of data.test.
        with_keywords: the splits that have keywords.
    """
    yield from _groups(recipe, test)
    yield from _terms(recipe, test)
    yield from _keywords(recipe, with_keywords)
    preset = normalizer_of_terms(test, recipe.evaluate.normalizer)
    prompted = [item for item in test if false_keywords("", item.text, item.keywords, preset)]
    if prompted:
        yield (
            f"data.test: the keywords of {len(prompted)} of {count(len(test), 'row')}, such as {prompted[0].id}, are "
            "in their transcripts: the prompt contains the answer. Use the column `terms` for terms that are only "
            "scored"
        )


def _keywords(recipe: Recipe, with_keywords: Collection[str]) -> Iterator[str]:
    """Keywords in prompts of a model that neither its own training nor this run trains with keywords."""
    used = [f"data.{split}" for split in with_keywords] + ["evaluate.keyword_lists"] * bool(
        recipe.evaluate.keyword_lists
    )
    limits = read_limits(recipe.model.base)
    warning = limits.prompt_warning(limits.instruction, keywords=True)
    trained = recipe.keywords.sampled or {"data.train", "data.replay"} & {*used}
    if warning and used and not trained and recipe.decode.in_prompt(("",)):
        yield f"{', '.join(used)}: {warning}"


def _groups(recipe: Recipe, test: Sequence[Utterance]) -> Iterator[str]:
    filled = {name for name in ROW_COLUMNS if any(getattr(item, name) not in (None, "") for item in test)}
    columns = {name for item in test for name in item.extra} | {*ROW_COLUMNS}
    filled |= {name for item in test for name, value in item.extra.items() if value not in (None, "")}
    if len(recipe.data.test) > 1:
        columns, filled = columns | {"corpus"}, filled | {"corpus"}
    for name in recipe.evaluate.groups:
        if name in filled or name in BINS or recipe.evaluate.groups == DEFAULT_GROUPS or not test:
            continue
        if name in columns:
            yield f"evaluate.groups: no row of data.test has a value in column {name!r}"
            continue
        nearest = difflib.get_close_matches(name, filled, 1)
        hint = f"; did you mean {nearest[0]!r}?" if nearest else ""
        yield (
            f"evaluate.groups: no row of data.test has a column {name!r}. Its columns: "
            f"{', '.join(sorted(filled)) or 'none'}{hint}"
        )


def _terms(recipe: Recipe, test: Sequence[Utterance]) -> Iterator[str]:
    preset = normalizer_of_terms(test, recipe.evaluate.normalizer)
    if recipe.data.terms and test:
        try:
            occurs = _occurring(test, read_terms(recipe.data.terms), preset)
        except DataError:  # reported where the file is read
            return
        missing = [term for term, used in occurs.items() if not used]
        if len(missing) == len(occurs):
            yield f"data.terms: no term of {recipe.data.terms} occurs in data.test, so their recall cannot be measured"
        elif missing:
            yield (
                f"data.terms: {len(missing)} of {count(len(occurs), 'term')} do not occur in data.test, such as "
                f"{missing[0]!r}; their recall is not measured"
            )
    cells = [cell for item in test for cell in (item.keywords, item.extra.get("terms"))]
    if recipe.evaluate.keyword_lists and not recipe.data.terms and test and not column_terms(cells, preset):
        yield "evaluate.keyword_lists: there are no terms to test; set data.terms, or add a column `terms` to data.test"


def _occurring(items: Iterable[Utterance], terms: list[str], preset: str) -> dict[str, bool]:
    """By term, whether it occurs in a transcript. The counts of BATCH transcripts are in memory."""
    occurs, rest = dict[str, bool](), iter(items)
    while texts := [item.text for item in islice(rest, BATCH)]:
        for row in term_recall(texts, texts, terms, preset):
            occurs[row.term] = occurs.get(row.term, False) or row.support > 0
    return occurs
