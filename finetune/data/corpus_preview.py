"""What `finetune check` says about the corpora of a recipe. Decodes no audio and writes no file."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain

from finetune.core.config import Recipe
from finetune.core.errors import DataError
from finetune.core.wording import count
from finetune.data.audio_preview import preview_channels
from finetune.data.corpora import preview_rows
from finetune.data.corpus import Corpus
from finetune.data.corpus_entries import preview_entry, split_notes
from finetune.data.manifest import Utterance
from finetune.data.prepare_split import SPECIAL_TOKENS
from finetune.data.raw_rows import BLOCK_ROWS
from finetune.data.row import Row
from finetune.data.row_checks import check_prompt
from finetune.data.splits import SPLITS
from finetune.data.style import BASE_STYLE, format_style, split_style
from finetune.data.text_rules import TextRules
from finetune.data.unused_settings import text_of_row, unused_settings
from finetune.metrics.keyword_terms import prompted_terms
from finetune.metrics.terms import notes_on_signs

SAMPLE_BLOCKS = 32  # of a larger corpus, at equal distances, of which transcripts and headers are read
LARGEST_EXACT = SAMPLE_BLOCKS * BLOCK_ROWS  # rows of a corpus that is read completely


def preview_corpora(recipe: Recipe, open_corpus: Callable[..., Corpus | None] = preview_rows) -> Iterator[str]:
    """One line for each corpus of a recipe, then the style of the transcripts. Decodes no audio and writes no file.

    Args:
        recipe: the recipe.
        open_corpus: opens a corpus by its name; None for one that only `prepare` opens.

    Raises:
        DataError: after the last line, if a source cannot be read or lacks audio. The message lists all of them.
    """
    problems, any_closed = list[str](), False
    splits: dict[str, list[Corpus]] = {}
    for split in SPLITS:
        for entry in getattr(recipe.data, split):
            source = entry.path
            try:
                rows = preview_entry(entry, open_corpus)
            except DataError as error:
                problems.append(f"data.{split}: {error}")
                continue
            yield f"{split:6} {'not opened' if rows is None else count(len(rows), 'row'):>12}  {source}"
            if rows is None:
                any_closed = True
                continue
            yield from preview_channels(sampled_rows(rows))
            yield from (f"       {note}" for note in split_notes(rows))
            name = f"data.{split}: {source}"
            found = [*_problems(rows, name, recipe.data.max_bad_fraction)]
            problems += found
            if rows.facts.num_faults and not found and (fault := (row := rows[rows.facts.first_fault]).fault):
                number = count(rows.facts.num_faults, "row")
                yield f"       {number} cannot be used, such as {row.where}: {fault.kind}: {fault.detail}"
            problems += _without_prompt(rows, name, recipe.data.max_bad_fraction)
            splits.setdefault(split, []).append(rows)
    if recipe.data.terms:
        try:
            terms = prompted_terms(recipe, SPECIAL_TOKENS)
            yield f"terms  {count(len(terms), 'term'):>12}  {recipe.data.terms}"
            yield from (f"terms  {note}" for note in notes_on_signs(terms, recipe.evaluate.normalizer, None))
        except DataError as error:
            problems.append(f"data.terms: {error}")
    if any_closed:
        yield "not opened: checked by `finetune prepare`"
    yield from _preview_style(recipe, splits)
    if not any_closed:
        yield from _preview_settings(recipe, splits)
    if problems:
        raise DataError("\n".join(problems))


def sampled_rows(corpus: Corpus) -> Iterator[Row]:
    """The rows of a corpus; of a large one those of SAMPLE_BLOCKS blocks, the same each time."""
    count = corpus.num_blocks
    numbers = range(count) if count <= SAMPLE_BLOCKS else [i * count // SAMPLE_BLOCKS for i in range(SAMPLE_BLOCKS)]
    return chain.from_iterable(map(corpus.block, numbers))


def _problems(rows: Corpus, name: str, max_bad_fraction: float) -> Iterator[str]:
    """The reasons for which `prepare` will refuse a corpus."""
    facts, most = rows.facts, max_bad_fraction * len(rows)
    if facts.num_missing > most:
        yield (f"{name}: {facts.num_missing} of {count(len(rows), 'row')} have no audio file")
    if facts.num_faults > most and (fault := (row := rows[facts.first_fault]).fault):
        yield (
            f"{name}: {facts.num_faults} of {count(len(rows), 'row')} cannot be used, such as {row.where}: "
            f"{fault.kind}: {fault.detail}"
        )


def _without_prompt(corpus: Corpus, name: str, max_bad_fraction: float) -> Iterator[str]:
    """The reason for which `prepare` will refuse a corpus with rows without a valid task; of a large one, a sample."""
    count, wrong, first = 0, 0, ""
    for row in sampled_rows(corpus):
        count += 1
        if finding := check_prompt(row, text_of_row(row)):
            wrong, first = wrong + 1, first or f"{row.where}: {finding.kind}: {finding.detail}"
    if wrong > max_bad_fraction * count:
        yield f"{name}: {wrong} of {count} rows cannot be used, such as {first}"


def _texts(corpora: Iterable[Corpus]) -> Iterator[Utterance]:
    return (text_of_row(row) for corpus in corpora for row in sampled_rows(corpus))


def _preview_style(recipe: Recipe, splits: dict[str, list[Corpus]]) -> Iterator[str]:
    """The style of the transcripts."""
    settings, lines = recipe.data.text, list[str]()
    for split, corpora in splits.items():
        rules = TextRules(settings)
        style = split_style((rules(item) for item in _texts(corpora) if item.text), rules)
        if style_lines := format_style(split, style, settings.language):
            note = [f"{split}: of a sample of {style.rows:,} transcripts"] if _is_sampled(corpora) else []
            lines += note + style_lines
    if lines:
        yield f"\nstyle of the transcripts ({BASE_STYLE}):"
        yield from lines


def _preview_settings(recipe: Recipe, splits: dict[str, list[Corpus]]) -> Iterator[str]:
    """The settings that have no effect on the data."""
    test = splits.get("test", [])
    with_keywords = [name for name, corpora in splits.items() if any(corpus.facts.has_keywords for corpus in corpora)]
    if _is_sampled(test):
        yield f"data.test has more than {LARGEST_EXACT:,} rows: its groups and terms are checked by `finetune prepare`"
    yield from unused_settings(recipe, [] if _is_sampled(test) else list(_texts(test)), with_keywords)


def _is_sampled(corpora: Sequence[Corpus]) -> bool:
    return any(corpus.num_blocks > SAMPLE_BLOCKS for corpus in corpora)
