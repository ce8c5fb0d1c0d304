"""Drafts from the second CTC head of 4.1 and 5.0: the same tokens as greedy decoding, in fewer passes.

The embedded model gets a head that is fitted to its own texts of some clips, so its drafts are right for these and
wrong for other clips. With YaRN positions and a head it has the layout of 5.0.
"""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from family import YARN, make_bpe_head
from support import INSTRUCTION, noise

from finetune.core.options import DecodingOptions, TranscribeOptions
from finetune.data.features import pad_features
from finetune.data.manifest import Utterance
from finetune.inference.draft_sources import bpe_drafts, draft_texts
from finetune.inference.encode import clip_features
from finetune.inference.recognize import recognize
from finetune.model.bpe_head import POOLED, PooledLabels, pool
from finetune.model.granite import SpeechModel, load_model
from finetune.model.prompt import encode_text

FITTED = (1, 2, 4, 5, 7)  # clips without keywords
GREEDY, SPECULATIVE = DecodingOptions("greedy"), DecodingOptions("speculative")


def fit_head(model: SpeechModel, clips: list[Utterance], folder: Path) -> None:
    """Writes a head whose best path is the greedy text of the clips, by least squares."""
    rows, labels = [], []
    texts = recognize(model, clips, INSTRUCTION, GREEDY)
    model.bpe_file = folder  # so that `encode` keeps the weights of the frames
    for item, hypothesis in zip(clips, texts, strict=True):
        with torch.inference_mode():
            audio = model.encode(*pad_features([clip_features(model, item)]))
        assert audio.speech is not None
        pooled, path = pool(audio.states, audio.speech)[0], list[int]()
        for token in encode_text(model.tokenizer, hypothesis.text):
            path += [token + 1] if not path or path[-1] != token + 1 else [0, token + 1]
        assert len(path) <= len(pooled), "the clip is too short for its text"
        rows.append(pooled)
        labels.append(torch.tensor(path + [0] * (len(pooled) - len(path))))
    states = torch.nn.functional.pad(torch.cat(rows), (0, 1), value=1.0)
    targets = 20.0 * torch.nn.functional.one_hot(torch.cat(labels), model.lm_head.out_features).float()
    weights = torch.linalg.lstsq(states.double(), targets.double(), driver="gelsd").solution.float()
    make_bpe_head(folder, weights[:-1].T, weights[-1])


@pytest.fixture(scope="module", params=["4.1", "5.0"])
def granite(
    request: pytest.FixtureRequest, nano: Path, clips: list[Utterance], tmp_path_factory: pytest.TempPathFactory
) -> SpeechModel:
    folder = tmp_path_factory.mktemp("bpe") / "model"
    shutil.copytree(nano, folder)
    if request.param == "5.0":
        config = json.loads((folder / "config.json").read_text())
        config["text_config"] |= {"rope_parameters": YARN, "max_position_embeddings": 16384}
        (folder / "config.json").write_text(json.dumps(config))
    fit_head(load_model(str(folder), "float32"), [clips[index] for index in FITTED], folder)
    loaded = load_model(str(folder), "float32")
    assert loaded.profile.version == request.param
    return loaded


def test_drafts_of_the_bpe_head_change_no_token(granite: SpeechModel, clips: list[Utterance]) -> None:
    """For clips that the head was fitted to and for others, alone and in batches."""
    greedy = recognize(granite, clips, INSTRUCTION, GREEDY)
    for seconds in (0.1, 240.0):
        options = DecodingOptions("speculative", batch_seconds=seconds)
        drafted = recognize(granite, clips, INSTRUCTION, options)
        assert [item.tokens for item in drafted] == [item.tokens for item in greedy]
        assert all(drafted[index].accepted for index in FITTED)


def test_a_right_draft_is_verified_in_one_pass(granite: SpeechModel, clips: list[Utterance]) -> None:
    """The look-ahead has no limit: all tokens of a text are verified at once."""
    fitted = [clips[index] for index in FITTED]
    greedy = recognize(granite, fitted, INSTRUCTION, GREEDY)
    drafted = recognize(granite, fitted, INSTRUCTION, DecodingOptions("speculative", batch_seconds=0.1))
    pairs = zip(greedy, drafted, strict=True)
    # A draft has the usual tokens of its text; the model wrote some texts with other ones.
    usual = [(one, two) for one, two in pairs if list(one.tokens) == encode_text(granite.tokenizer, one.text)]
    assert max(len(one.tokens) for one, _ in usual) >= 6
    for one, two in usual:
        assert (two.tokens, two.passes, two.drafted) == (one.tokens, 1, len(one.tokens))


def test_labels_do_not_depend_on_the_batch(granite: SpeechModel) -> None:
    """Padded frames have no weight, whatever their states are, also in a window of four that is partly padding."""
    head, counts = granite.bpe_head, torch.tensor([83, 215])
    assert head is not None
    generator = torch.Generator().manual_seed(4)
    states, speech = torch.randn(2, 215, 160, generator=generator), torch.rand(2, 215, generator=generator)
    both = head.label(states, speech, counts)
    for row, frames in enumerate(counts.tolist()):
        alone = head.label(states[row : row + 1, :frames], speech[row : row + 1, :frames], counts[row : row + 1])
        count = int(alone.counts[0])
        assert int(both.counts[row]) == count == -(-frames // POOLED)
        assert torch.equal(both.labels[row, :count], alone.labels[0])
        assert float((both.posteriors[row, :count] - alone.posteriors[0]).abs().max()) < 1e-4
        assert float((both.entropies[row, :count] - alone.entropies[0]).abs().max()) < 1e-3
    clips = [noise(83, 1), noise(215, 2)]
    together, single = granite.encode(*pad_features(clips)), granite.encode(*pad_features(clips[:1]))
    assert together.speech is not None and single.speech is not None
    assert float((together.speech[0, :83] - single.speech[0]).abs().max()) < 1e-4
    assert float(together.speech.min()) >= 0 and float(together.speech.max()) <= 1


def test_japanese_is_drafted_by_the_bpe_head(granite: SpeechModel, clips: list[Utterance]) -> None:
    """The character head writes kana; the other head has the tokens of the language model."""
    item = Utterance(**{**vars(clips[0]), "language": "ja"})
    assert recognize(granite, [item], INSTRUCTION, SPECULATIVE)[0].drafted > 0
    granite_4_0 = load_model(str(Path(granite.source)), "float32")
    granite_4_0.bpe_file = None
    assert recognize(granite_4_0, [item], INSTRUCTION, SPECULATIVE)[0].drafted == 0
    options = TranscribeOptions(language="ja")
    assert options.effective_decoding(bpe_head=True).decoder == "speculative"
    assert options.effective_decoding().decoder == "greedy"
    assert TranscribeOptions(translate_to="fr").effective_decoding(bpe_head=True).decoder == "greedy"


def test_relaxed_decoding_keeps_a_certain_text_of_the_bpe_head(granite: SpeechModel, clips: list[Utterance]) -> None:
    """The entropy is that of the head that wrote the text."""
    with torch.inference_mode():
        audio = granite.encode(*pad_features([clip_features(granite, clips[FITTED[0]])]))
    (text,) = draft_texts(granite, audio)
    for limit, source in ((text.entropy * 1.01, "ctc"), (text.entropy * 0.99, "draft")):
        options = DecodingOptions("relaxed", max_entropy=limit, min_probability=0.9)
        (hypothesis,) = recognize(granite, [clips[FITTED[0]]], INSTRUCTION, options)
        assert (hypothesis.accepted_by, hypothesis.text) == (source, text.text)


def test_pooling_weights_frames_by_their_speech() -> None:
    states = torch.arange(12.0).view(1, 6, 2)
    pooled = pool(states, torch.tensor([[1.0, 0.0, 1.0, 2.0, 0.0, 0.5]]))
    assert torch.allclose(pooled[0], torch.tensor([[4.0, 5.0], [10.0, 11.0]]), atol=1e-5)
    assert torch.equal(pool(states, torch.zeros(1, 6)), torch.zeros(1, 2, 2))


def labels_of(granite: SpeechModel, path: list[int], posteriors: list[float]) -> PooledLabels:
    values = torch.tensor([posteriors])
    return PooledLabels(torch.tensor([path]), values, values, torch.tensor([len(path) - 1]))


def test_a_path_of_labels_is_collapsed_to_text(granite: SpeechModel) -> None:
    """Label 0 is the blank, repeats are one token, label i is token i - 1; the last frame here is padding."""
    tokens = encode_text(granite.tokenizer, " take a a pill")
    path = [0, tokens[0] + 1, tokens[0] + 1, *(token + 1 for token in tokens[1:2]), 0]
    path += [label for token in tokens[2:] for label in (token + 1, 0)]
    special = [granite.audio_token_id + 1, granite.tokenizer.eos_token_id + 1]
    path += [*special, encode_text(granite.tokenizer, " lost")[0] + 1]
    probs = np.linspace(0.3, 0.9, len(path)).tolist()
    (draft,) = bpe_drafts(labels_of(granite, path, probs), granite.tokenizer)
    assert draft.text == "take a a pill" and len(draft.probs) == len(draft.text)
    assert draft.probs[0] == pytest.approx(probs[2]), "the higher posterior of two equal labels"
    assert draft.entropy == pytest.approx(probs[-2])
    assert bpe_drafts(labels_of(granite, [0, 0], [0.5, 0.5]), granite.tokenizer)[0].text == ""
    assert bpe_drafts(labels_of(granite, [5], [0.5]), granite.tokenizer)[0].text == ""


def test_a_character_of_several_tokens_is_complete_or_left_out(granite: SpeechModel) -> None:
    tokens = encode_text(granite.tokenizer, "日本")
    assert len(tokens) >= 4, "the vocabulary has no token of a whole character"
    whole = [label for token in tokens for label in (token + 1, 0)]
    probs = np.linspace(0.9, 0.5, len(whole) + 1).tolist()
    (draft,) = bpe_drafts(labels_of(granite, [*whole, 0], probs), granite.tokenizer)
    assert draft.text == "日本" and draft.probs[0] > draft.probs[1] >= min(probs[:-1])
    (cut,) = bpe_drafts(labels_of(granite, [*whole[2:], 0], probs[2:]), granite.tokenizer)
    assert cut.text == "本", "the incomplete first character is left out, the next one is kept"
