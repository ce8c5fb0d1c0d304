"""Texts that are encoded in blocks: the tokens and counts of single texts, from a file that fits its manifest."""

import multiprocessing
import os
import signal
import time
from collections.abc import Iterable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from finetune.core.errors import ModelError
from finetune.data.manifest import Utterance, write_manifest
from finetune.data.utterance_table import UtteranceTable, as_table, open_manifest
from finetune.model.ctc import NUM_LABELS, to_labels
from finetune.model.granite import SpeechModel, load_model
from finetune.model.prompt import encode_text, render
from finetune.training.encoded_text import (
    BLOCK,
    EncodedTexts,
    TextBlock,
    TextEncoder,
    count_labels,
    encoded,
    encoded_texts,
)

TEXTS = [
    "a stent",
    "",
    "  two  spaces ",
    "naïve ÄÖ",
    "ハロー世界",
    "<|audio|> and <|end_of_text|>",
    "aa bb\ncc",
    "ΑΣ İx",
]
INSTRUCTION = "write the words"


@pytest.fixture(scope="module")
def model(nano: Path) -> SpeechModel:
    return load_model(str(nano), "float32")


@pytest.fixture
def encoder(model: SpeechModel) -> TextEncoder:
    return TextEncoder(model.tokenizer, INSTRUCTION)


class Counting(TextEncoder):
    """Counts the texts that it encodes."""

    count = 0

    def targets(self, texts: Any) -> list[list[int]]:
        self.count += len(texts)
        return super().targets(texts)


def utterances(texts: Iterable[str]) -> list[Utterance]:
    keywords = [(), ("stent",), ("stent", "ward")]
    return [Utterance(f"u{n}", "a.wav", 1.0, text, keywords=keywords[n % 3]) for n, text in enumerate(texts)]


def assert_encoded(texts: EncodedTexts, items: list[Utterance], tokenizer: Any) -> None:
    """The values are those of single texts."""
    prompts = [render(tokenizer, INSTRUCTION, item.keywords) for item in items]
    targets = [[*encode_text(tokenizer, item.text), tokenizer.eos_token_id] for item in items]
    labels = [to_labels(item.text) for item in items]
    assert [texts.target_of(row) for row in range(len(items))] == targets
    assert texts.target.tolist() == [len(target) for target in targets]
    assert texts.prompt.tolist() == [len(prompt.prefix) + len(prompt.suffix) for prompt in prompts]
    assert texts.labels.tolist() == [len(known) for known, _ in labels]
    assert texts.unknown.tolist() == [unknown for _, unknown in labels]
    assert texts.ctc_frames.tolist() == [frames_needed(known) for known, _ in labels]


def test_blocks_of_texts_have_the_tokens_of_single_texts(model: SpeechModel, encoder: TextEncoder) -> None:
    items = utterances(TEXTS * (2 * BLOCK // len(TEXTS) + 1))
    assert len(items) > 2 * BLOCK and len(items) % BLOCK
    assert_encoded(encoded_texts(as_table(items), encoder), items, model.tokenizer)


def test_a_tokenizer_in_python_gives_the_same_tokens(model: SpeechModel, encoder: TextEncoder) -> None:
    expected = encoder.targets(TEXTS)
    encoder._backend = None
    assert encoder.targets(TEXTS) == expected


def test_texts_of_two_splits_are_joined(model: SpeechModel, encoder: TextEncoder) -> None:
    items = utterances([f"word {n}" for n in range(BLOCK + 5)])
    parts = [encoded_texts(as_table(part), encoder) for part in (items[: BLOCK + 2], items[BLOCK + 2 :], [])]
    assert_encoded(EncodedTexts.joined(parts), items, model.tokenizer)


def frames_needed(labels: list[int]) -> int:
    """One for each label, and one for a blank between two equal neighbours."""
    return len(labels) + sum(left == right for left, right in pairwise(labels))


def test_ctc_needs_a_frame_for_each_label_and_for_a_blank_between_equal_labels() -> None:
    labels = to_labels("all too")[0]
    needed = frames_needed(labels)
    assert needed == 9 and frames_needed([]) == 0
    for frames, possible in ((needed, True), (needed - 1, False)):
        loss = torch.nn.functional.ctc_loss(
            torch.zeros(frames, 1, NUM_LABELS).log_softmax(-1),
            torch.tensor([labels]),
            torch.tensor([frames]),
            torch.tensor([len(labels)]),
        )
        assert bool(torch.isfinite(loss)) == possible


@settings(deadline=None)
@given(
    st.lists(st.text(st.characters() | st.sampled_from("カーa"), max_size=12), max_size=6), st.sampled_from([256, 348])
)
def test_labels_are_counted_as_they_are_made(texts: list[str], num_labels: int) -> None:
    """With the head of 256 labels of granite-speech-3.3 too."""
    labels = [to_labels(text, num_labels) for text in texts]
    counts, frames, unknown = count_labels(texts, num_labels)
    assert counts.tolist() == [len(known) for known, _ in labels] and unknown.tolist() == [n for _, n in labels]
    assert frames.tolist() == [frames_needed(known) for known, _ in labels]


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    path = tmp_path / "train.jsonl"
    write_manifest(path, utterances(TEXTS))
    return path


def read(path: Path, model: SpeechModel, instruction: str = INSTRUCTION) -> int:
    """Checks what is read beside a manifest; returns the number of texts that were encoded."""
    encoder, table = Counting(model.tokenizer, instruction), open_manifest(path)
    texts = encoded_texts(table, encoder, path)
    if instruction == INSTRUCTION:
        assert_encoded(texts, list(table), model.tokenizer)
    return encoder.count


def test_the_file_is_made_once_for_a_manifest_an_instruction_and_a_tokenizer(
    model: SpeechModel, manifest: Path, nano: Path
) -> None:
    assert (read(manifest, model), read(manifest, model)) == (len(TEXTS), 0)
    assert read(manifest, model, "other words") == len(TEXTS)
    assert (read(manifest, model), read(manifest, model)) == (len(TEXTS), 0)
    write_manifest(manifest, utterances([*TEXTS[1:], TEXTS[0]]))
    assert (read(manifest, model), read(manifest, model)) == (len(TEXTS), 0)
    other = load_model(str(nano), "float32")
    other.tokenizer.chat_template = "{{ messages[0]['content'] }} now:"
    assert (read(manifest, other), read(manifest, other)) == (len(TEXTS), 0)
    other.tokenizer.add_tokens(["naïve"])
    assert (read(manifest, other), read(manifest, other)) == (len(TEXTS), 0)


@pytest.mark.parametrize("damage", ["empty", "cut", "text", "rows"])
def test_a_damaged_file_is_made_again(model: SpeechModel, manifest: Path, damage: str, encoder: TextEncoder) -> None:
    read(manifest, model)
    path = manifest.with_suffix(".tokens.arrow")
    content = path.read_bytes()
    path.write_bytes({"empty": b"", "cut": content[:-40], "text": b"no tokens", "rows": content}[damage])
    if damage == "rows":  # of another table with the same key
        table = as_table(utterances(["one text"]))
        path.unlink()
        encoded_texts(UtteranceTable(table._table, open_manifest(manifest).manifest_sha256), encoder, manifest)
    assert (read(manifest, model), read(manifest, model)) == (len(TEXTS), 0)


def test_a_folder_that_cannot_be_written_needs_no_file(model: SpeechModel, manifest: Path) -> None:
    manifest.with_suffix(".tokens.arrow").mkdir()  # root may write everywhere
    assert read(manifest, model) == 2 * len(TEXTS), "encoded for the file, which cannot be moved, and for memory"


def test_a_table_without_a_manifest_stores_nothing(encoder: TextEncoder, manifest: Path) -> None:
    encoded_texts(as_table(utterances(TEXTS)), encoder, manifest)
    assert [path.name for path in manifest.parent.iterdir()] == ["train.jsonl"]


def test_an_error_of_the_template_leaves_no_file(model: SpeechModel, manifest: Path) -> None:
    with pytest.raises(ModelError, match=r"contains the special token <\|audio\|>"):
        read(manifest, model, "the <|audio|>")
    assert not [path for path in manifest.parent.iterdir() if "tmp" in path.name or path.name == "train.tokens.arrow"]


def test_a_prompt_is_rendered_once_for_its_keywords(model: SpeechModel) -> None:
    rendered = []

    class Recording(TextEncoder):
        def _render(self, keywords: tuple[str, ...] = (), instruction: str = "") -> Any:
            rendered.append(keywords)
            return super()._render(keywords, instruction)

    encoder = Recording(model.tokenizer, INSTRUCTION)
    items = utterances(TEXTS * 3)
    list(encoded([TextBlock([item.text for item in items], [item.keywords for item in items])], encoder))
    assert sorted(rendered) == [(), ("stent",), ("stent", "ward")]
    assert encoder.prompt(("stent",)) == render(model.tokenizer, INSTRUCTION, ("stent",)) and len(rendered) == 4


def test_memory_does_not_grow_with_the_number_of_texts(model: SpeechModel, tmp_path: Path) -> None:
    """The tokens are pages of the file."""
    path = tmp_path / "train.jsonl"
    write_manifest(path, [replace(item, id=str(n)) for n, item in enumerate(utterances(TEXTS * 40))])
    texts = encoded_texts(open_manifest(path), TextEncoder(model.tokenizer, INSTRUCTION), path)
    assert not any(tokens.flags.owndata or tokens.flags.writeable for _, tokens in texts.blocks)


def _kill_in_build(path: Path, model: SpeechModel) -> None:
    class Killed(TextEncoder):
        def targets(self, texts: Any) -> Any:
            os.kill(os.getpid(), signal.SIGKILL)

    encoded_texts(open_manifest(path), Killed(model.tokenizer, INSTRUCTION), path)


class Slow(Counting):
    """All processes need the file before it is there."""

    def targets(self, texts: Any) -> list[list[int]]:
        time.sleep(0.3)
        return super().targets(texts)


def _rank(path: Path, model: SpeechModel, counts: "multiprocessing.Queue[int]") -> None:
    encoder = Slow(model.tokenizer, INSTRUCTION)
    assert_encoded(encoded_texts(open_manifest(path), encoder, path), list(open_manifest(path)), model.tokenizer)
    counts.put(encoder.count)


def test_one_of_several_processes_encodes_and_a_killed_one_is_replaced(model: SpeechModel, manifest: Path) -> None:
    context = multiprocessing.get_context("fork")
    open_manifest(manifest)
    killed = context.Process(target=_kill_in_build, args=(manifest, model))
    killed.start()
    killed.join()
    assert killed.exitcode == -signal.SIGKILL and not manifest.with_suffix(".tokens.arrow").exists()
    counts: multiprocessing.Queue[int] = context.Queue()
    ranks = [context.Process(target=_rank, args=(manifest, model, counts)) for _ in range(3)]
    for rank in ranks:
        rank.start()
    assert sorted(counts.get(timeout=60) for _ in ranks) == [0, 0, len(TEXTS)]
    for rank in ranks:
        rank.join()
