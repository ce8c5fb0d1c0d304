"""Prompts, targets and CTC labels of many texts: their numbers of tokens in arrays, the tokens in a mapped file.

The file lies beside the manifest of a run. Its key has everything that it depends on, so an outdated file is not used.
"""

import hashlib
import json
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import accumulate, chain
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import tokenizers
import transformers
from numpy.typing import ArrayLike, NDArray
from transformers import PreTrainedTokenizerBase as Tokenizer

from finetune.core.prompts import DEFAULT_PROFILE, PromptProfile
from finetune.data.arrow_columns import list_column, number_column
from finetune.data.manifest import PROMPT_COLUMNS
from finetune.data.row_prompt import prompt_text
from finetune.data.utterance_table import UtteranceTable
from finetune.model.ctc import KATAKANA, LATIN, NUM_LABELS
from finetune.model.prompt import Prompt, encode_text, render
from finetune.training.plan import Indices
from finetune.training.stored import open_or_build

VERSION = 2  # raise it when the content of the file changes
KEY = b"key"
SUFFIX = ".tokens.arrow"
BLOCK = 2048  # texts that are encoded at a time
PROMPTS = 16_384  # prompts in memory, by their keywords
COUNTS = ("prompt", "labels", "ctc_frames", "unknown")
SCHEMA = pa.schema([*(pa.field(name, pa.int32()) for name in COUNTS), pa.field("target", pa.list_(pa.int32()))])


@dataclass(frozen=True)
class TextBlock:
    """The texts of up to BLOCK utterances, and what their prompts have.

    Attributes:
        texts: the transcripts or translations.
        keywords: of each prompt.
        instructions: of each prompt; None if all have the instruction of the recipe.
        spoken: whether each text is what is spoken, so that it has CTC labels; None if all are.
    """

    texts: Sequence[str]
    keywords: Sequence[Sequence[str]]
    instructions: Sequence[str] | None = None
    spoken: Sequence[bool] | None = None


class TextEncoder:
    """Encodes prompts and targets.

    Args:
        tokenizer: of the base model.
        instruction: of the prompts of transcriptions without an instruction of their own.
        profile: the prompts of the model.
        num_labels: size of the CTC head of characters.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        instruction: str,
        profile: PromptProfile = DEFAULT_PROFILE,
        num_labels: int = NUM_LABELS,
    ) -> None:
        self.tokenizer, self.instruction, self.profile, self.num_labels = tokenizer, instruction, profile, num_labels
        self.prompt = lru_cache(PROMPTS)(self._render)
        self._backend = _backend(tokenizer)

    def _render(self, keywords: tuple[str, ...] = (), instruction: str = "") -> Prompt:
        return render(self.tokenizer, instruction or self.instruction, keywords, self.profile)

    def new_prompt(self, keywords: tuple[str, ...], instruction: str) -> Prompt:
        """A prompt that occurs once: it is not kept in memory."""
        return self._render(keywords, instruction)

    def prompt_tokens(self, keywords: tuple[str, ...], instruction: str = "") -> int:
        """The number of tokens of a prompt, without audio tokens."""
        prompt = self.prompt(keywords, instruction)
        return len(prompt.prefix) + len(prompt.suffix)

    def targets(self, texts: Sequence[str]) -> list[list[int]]:
        """The tokens of texts as `encode_text` gives them, with the end-of-text token; encoded in several threads."""
        if self._backend is None:
            tokens = [encode_text(self.tokenizer, text) for text in texts]
        else:
            tokens = [encoding.ids for encoding in self._backend.encode_batch_fast(texts, add_special_tokens=False)]
        return [[*ids, self.tokenizer.eos_token_id] for ids in tokens]

    def fingerprint(self) -> str:
        """A hash of everything that tokens depend on."""
        backend = self._backend.to_str() if self._backend else repr(sorted(self.tokenizer.get_vocab().items()))
        parts = [
            transformers.__version__,
            tokenizers.__version__,
            type(self.tokenizer).__name__,
            self.tokenizer.eos_token_id,
            backend,
        ]
        parts += [self.tokenizer.chat_template, sorted(self.tokenizer.get_added_vocab().items()), self.instruction]
        parts += [self.profile.version]
        return hashlib.sha256(json.dumps([VERSION, *parts]).encode()).hexdigest()


def _backend(tokenizer: Tokenizer) -> "tokenizers.Tokenizer | None":
    """A copy of a fast tokenizer, set as `encode_text` sets it."""
    if not tokenizer.is_fast:
        return None
    try:
        backend = tokenizers.Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    except Exception:  # a part of it is written in Python
        return None
    backend.no_truncation()
    backend.no_padding()
    backend.encode_special_tokens = True  # the text of a special token is plain text
    return backend


@dataclass(frozen=True, eq=False)
class EncodedTexts:
    """The encoded texts of utterances, by row.

    Attributes:
        prompt: (n,) tokens of the prompt.
        target: (n,) tokens of the target, with the end-of-text token.
        labels: (n,) CTC labels.
        ctc_frames: (n,) frames that CTC needs.
        unknown: (n,) characters outside the CTC alphabet.
        blocks: of consecutive rows, where each target begins, and the tokens of all.
    """

    prompt: Indices
    target: Indices
    labels: Indices
    ctc_frames: Indices
    unknown: Indices
    blocks: list[tuple[Indices, Indices]]

    @classmethod
    def of(cls, batches: Iterable[pa.RecordBatch]) -> "EncodedTexts":
        """From the record batches of a file or of `encoded`."""
        columns: list[list[Indices]] = [[np.zeros(0, np.int32)] for _ in (*COUNTS, "target")]
        blocks = []
        for batch in batches:
            for name, parts in zip(COUNTS, columns, strict=False):
                parts.append(_numbers(batch.column(name)))
            target = batch.column("target")
            bounds = np.frombuffer(target.buffers()[1], np.int32)[target.offset :][: len(target) + 1]
            blocks.append((bounds, _numbers(target.values)))
            columns[-1].append(np.diff(bounds))
        prompt, labels, ctc_frames, unknown, target_counts = map(np.concatenate, columns)
        return cls(prompt, target_counts, labels, ctc_frames, unknown, blocks)

    @classmethod
    def joined(cls, parts: Sequence["EncodedTexts"]) -> "EncodedTexts":
        """The rows of several, one after another."""
        prompt, target, labels, ctc_frames, unknown = (
            np.concatenate([getattr(part, name) for part in parts])
            for name in ("prompt", "target", "labels", "ctc_frames", "unknown")
        )
        return cls(prompt, target, labels, ctc_frames, unknown, [block for part in parts for block in part.blocks])

    @cached_property
    def _ends(self) -> list[int]:
        return list(accumulate(len(bounds) - 1 for bounds, _ in self.blocks))

    def target_of(self, row: int) -> list[int]:
        """The tokens of a target, with the end-of-text token."""
        number = bisect_right(self._ends, row)
        bounds, tokens = self.blocks[number]
        place = row - self._ends[number] + len(bounds) - 1
        return list(tokens[bounds[place] : bounds[place + 1]].tolist())


def encoded(blocks: Iterable[TextBlock], encoder: TextEncoder) -> Iterator[Any]:
    """Record batches of SCHEMA with the encoded texts of each block."""
    for block in blocks:
        targets = encoder.targets(block.texts)
        sizes = [*map(len, targets)]
        tokens = np.fromiter(chain.from_iterable(targets), np.int32, sum(sizes))
        instructions = block.instructions or [""] * len(block.texts)
        prompts = [
            encoder.prompt_tokens(tuple(words), text) for words, text in zip(block.keywords, instructions, strict=True)
        ]
        counts: Iterable[Indices] = count_labels(block.texts, encoder.num_labels)
        if block.spoken is not None:
            counts = [np.where(block.spoken, column, 0) for column in counts]
        columns = [number_column(np.array(column, np.int32)) for column in (prompts, *counts)]
        yield pa.RecordBatch.from_arrays([*columns, list_column(sizes, number_column(tokens))], schema=SCHEMA)


def encoded_texts(
    table: UtteranceTable, encoder: TextEncoder, manifest: Path | None = None, keywords: bool = True
) -> EncodedTexts:
    """The encoded texts of utterances; from the file beside their manifest if there is one.

    Args:
        table: the utterances.
        encoder: encodes them.
        manifest: of the utterances; the file is made if it is missing or outdated. None keeps the texts in memory.
        keywords: prompts have the keywords of their rows.

    Raises:
        ModelError: see `render`.
    """
    keywords = keywords and table.has_keywords
    if manifest is None or not table.manifest_sha256:
        return EncodedTexts.of(encoded(_blocks(table, encoder, keywords), encoder))
    plain = " without keywords" if table.has_keywords and not keywords else ""
    key = f"{table.manifest_sha256} {encoder.fingerprint()}{plain}".encode()

    def opened(path: Path) -> EncodedTexts | None:
        try:
            reader = pa.ipc.open_file(pa.memory_map(str(path)))
            if reader.schema.metadata != {KEY: key} or not reader.schema.equals(SCHEMA):
                return None
            texts = EncodedTexts.of(reader.get_batch(number) for number in range(reader.num_record_batches))
            return texts if len(texts.prompt) == len(table) else None
        except (OSError, pa.ArrowInvalid):
            return None

    def build(path: Path) -> None:
        schema = SCHEMA.with_metadata({KEY: key})
        with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, schema) as writer:
            for batch in encoded(_blocks(table, encoder, keywords), encoder):
                writer.write_batch(batch)

    texts = open_or_build(manifest.with_suffix(SUFFIX), opened, build)
    return texts or EncodedTexts.of(encoded(_blocks(table, encoder, keywords), encoder))


def _blocks(table: UtteranceTable, encoder: TextEncoder, keywords: bool) -> Iterator[TextBlock]:
    return (text_block(table, rows, encoder, keywords) for rows in row_blocks(len(table)))


def row_blocks(count: int) -> Iterator[NDArray[np.int64]]:
    """The numbers of BLOCK rows each."""
    return (np.arange(start, min(start + BLOCK, count)) for start in range(0, count, BLOCK))


def text_block(table: UtteranceTable, rows: ArrayLike, encoder: TextEncoder, keywords: bool = True) -> TextBlock:
    """The texts and prompts of some rows, at most BLOCK; prompts with the keywords of their rows if `keywords`."""
    texts = table.pick("text", rows)
    words = table.pick("keywords", rows) if keywords and table.has_keywords else [[] for _ in texts]
    if not table.has_prompts:
        return TextBlock(texts, words)
    tasks, *others = (table.pick(name, rows) for name in PROMPT_COLUMNS)
    cells = zip(tasks, *others, strict=True)
    instructions = [prompt_text(row, encoder.instruction, encoder.profile) for row in cells]
    return TextBlock(texts, words, instructions, [not task for task in tasks])


def count_labels(texts: Sequence[str], num_labels: int = NUM_LABELS) -> tuple[Indices, Indices, Indices]:
    """For each text: its CTC labels (see `to_labels`), the frames that they need, and other characters.

    CTC needs a frame for each label, and one for a blank between two equal neighbours.
    """
    lowered = [text.lower() for text in texts]
    points = np.frombuffer("".join(lowered).encode("utf-32-le", "surrogatepass"), "<u4")
    rows = np.repeat(np.arange(len(lowered)), np.fromiter(map(len, lowered), np.int64, len(lowered)))
    known = ((points > 0) & (points < LATIN)) | ((points >= KATAKANA) & (points < KATAKANA + num_labels - LATIN))
    kept, kept_rows = points[known], rows[known]
    repeated = (kept[1:] == kept[:-1]) & (kept_rows[1:] == kept_rows[:-1])

    def per_row(row_numbers: NDArray[np.int64]) -> Indices:
        return np.bincount(row_numbers, minlength=len(lowered)).astype(np.int32)

    labels = per_row(kept_rows)
    return labels, labels + per_row(kept_rows[1:][repeated]), per_row(rows[~known])


def _numbers(column: pa.Array) -> Indices:
    """The values of a column of int32 without a copy."""
    return np.frombuffer(column.buffers()[1], np.int32)[column.offset :][: len(column)]
