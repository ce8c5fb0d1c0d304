"""What `finetune check` says about the corpora of a recipe. Decodes no audio and writes no file."""

from collections.abc import Iterator

from finetune.core.config import Recipe
from finetune.core.errors import DataError
from finetune.data.audio_preview import preview_channels
from finetune.data.corpora import has_audio_file, preview_rows
from finetune.data.corpus import Corpus
from finetune.data.manifest import Utterance
from finetune.data.splits import SPLITS
from finetune.data.style import BASE_STYLE, format_style, split_style
from finetune.data.text_rules import TextRules
from finetune.data.unused_settings import text_of_row, unused_settings
from finetune.metrics.terms import notes_on_signs, read_terms


def preview_corpora(recipe: Recipe) -> Iterator[str]:
    """One line for each corpus of a recipe, then the style of the transcripts. Decodes no audio and writes no file.

    Raises:
        DataError: after the last line, if a source cannot be read or lacks audio. The message lists all of them.
    """
    problems, any_closed = list[str](), False
    splits: dict[str, list[Utterance]] = {}
    for split in SPLITS:
        for source in getattr(recipe.data, split):
            try:
                rows = preview_rows(source)
            except DataError as error:
                problems.append(f"data.{split}: {error}")
                continue
            yield f"{split:6} {'not opened' if rows is None else f'{len(rows):,} rows':>12}  {source}"
            any_closed = any_closed or rows is None
            rows = rows or Corpus([])
            yield from preview_channels(rows)
            missing = sum(not has_audio_file(row) for row in rows)
            if missing > recipe.data.max_bad_fraction * len(rows):
                problems.append(f"data.{split}: {source}: {missing} of {len(rows)} rows have no audio file")
            faults = [(row, row.fault) for row in rows if row.fault]
            if len(faults) > recipe.data.max_bad_fraction * len(rows):
                row, fault = faults[0]
                problems.append(
                    f"data.{split}: {source}: {len(faults)} of {len(rows)} rows cannot be used, such as {row.where}: "
                    f"{fault.kind}: {fault.detail}"
                )
            splits.setdefault(split, []).extend(map(text_of_row, rows))
    if recipe.data.terms:
        try:
            terms = read_terms(recipe.data.terms)
            yield f"terms  {f'{len(terms):,} terms':>12}  {recipe.data.terms}"
            yield from (f"terms  {note}" for note in notes_on_signs(terms, recipe.evaluate.normalizer, None))
        except DataError as error:
            problems.append(f"data.terms: {error}")
    if any_closed:
        yield "not opened: checked by `finetune prepare`"
    yield from _preview_texts(recipe, splits, any_closed)
    if problems:
        raise DataError("\n".join(problems))


def _preview_texts(recipe: Recipe, splits: dict[str, list[Utterance]], any_closed: bool) -> Iterator[str]:
    """The style of the transcripts, and the settings that have no effect on the data."""
    settings, lines = recipe.data.text, list[str]()
    for split, utterances in splits.items():
        rules = TextRules(settings)
        style = split_style([rules(item) for item in utterances if item.text], rules)
        lines += format_style(split, style, settings.language)
    if lines:
        yield f"\nstyle of the transcripts ({BASE_STYLE}):"
        yield from lines
    if not any_closed:
        yield from unused_settings(recipe, splits)
