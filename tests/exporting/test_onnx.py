"""`--format onnx`: the graphs compute what the toolkit computes, and onnxruntime writes the same texts."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from command import Command
from conftest import ROOT, embedded
from torch import Tensor

from finetune.core.errors import CheckpointError, ModelError
from finetune.core.run_dir import RunDir
from finetune.data.features import pad_features
from finetune.data.manifest import Utterance, write_manifest
from finetune.exporting.engines.environment import python_of
from finetune.exporting.onnx.export import _compare, export_onnx, sizes
from finetune.exporting.onnx.graphs import AudioGraph, DecoderGraph, EmbeddingGraph, frame_unit
from finetune.inference.encode import clip_features
from finetune.model.granite import SpeechModel


@torch.no_grad()
def test_the_audio_graph_is_the_encoder_with_projector(
    model: Callable[[], SpeechModel], clips: list[Utterance]
) -> None:
    """For any padding, also of several blocks of attention."""
    granite = model()
    graph, unit = AudioGraph(granite), frame_unit(granite)
    assert unit % granite.hf.config.encoder_config.context_size == unit % granite.window == 0
    features, _ = pad_features([torch.cat([clip_features(granite, item) for item in clips[:5]])])
    assert features.shape[1] > granite.hf.config.encoder_config.context_size
    for length, padding in ((features.shape[1], 0), (97, 0), (97, unit)):
        frames = torch.tensor([length])
        expected = granite.encode(features[:, :length], frames)
        padded = torch.full((1, -(-length // unit) * unit + padding, 160), 9.0)  # what is padded does not matter
        padded[:, :length] = features[:, :length]
        found = graph(padded, frames)
        assert found.shape[1] == padded.shape[1] // granite.window * granite.queries
        count = int(expected.num_tokens[0])
        assert torch.allclose(found[:, :count], expected.embeds[:, :count], atol=1e-4, rtol=0)


@torch.no_grad()
def test_the_decoder_graph_is_the_language_model_in_pieces(model: Callable[[], SpeechModel]) -> None:
    granite = model()
    decoder, embedding = DecoderGraph(granite), EmbeddingGraph(granite)
    ids = torch.randint(0, granite.audio_token_id, (1, 12), generator=torch.Generator().manual_seed(1))
    embeds = embedding(ids)
    assert torch.equal(embeds, granite.embed(ids))

    def whole(length: int) -> Tensor:
        states = granite.language_model(inputs_embeds=embeds[:, :length], use_cache=False).last_hidden_state
        return granite.logits(states[:, -1])

    shape = sizes(granite)["empty_cache"]
    assert isinstance(shape, list)
    cache, end = torch.zeros(shape), 0
    for count in (7, 1, 4):
        logits, cache = decoder(embeds[:, end : end + count], cache)
        end += count
        assert cache.shape[3] == end
        assert torch.allclose(logits, whole(end), atol=1e-4, rtol=0)


def test_other_numbers_in_onnxruntime_are_refused() -> None:
    expected = torch.linspace(-50, 50, 9).view(3, 3).numpy()
    _compare(Path("audio.onnx"), expected + 0.01, expected)
    for found in (expected + 0.1, expected[:2], expected * float("nan")):
        with pytest.raises(ModelError, match=r"audio\.onnx gives other numbers in onnxruntime"):
            _compare(Path("audio.onnx"), found, expected)


def test_a_missing_package_is_named_before_the_training(
    finetune: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    recipe = ROOT / "recipes" / "quickstart.yaml"
    done = finetune("export", recipe, "--format", "onnx", "--set", f"runs={tmp_path}")
    assert done.code == 1 and "pip install 'finetune-granite-speech[onnx]'" in done.err
    assert not list(tmp_path.iterdir())


def test_files_of_the_user_are_not_deleted(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    run.exported("onnx").mkdir()
    (run.exported("onnx") / "notes.txt").touch()
    with pytest.raises(CheckpointError, match=r"notes\.txt was not written by an export"):
        export_onnx(run)


@pytest.mark.engines
def test_onnxruntime_writes_the_same_texts(nano: Path, tmp_path: Path, finetune: Command) -> None:
    try:
        python_of("onnx")
        for name in ("onnx", "onnxscript"):
            pytest.importorskip(name)
    except ModelError as error:
        pytest.skip(str(error))
    run = RunDir(tmp_path)
    run.export.symlink_to(nano)
    write_manifest(run.manifest("test"), embedded("canary", 6))
    export_onnx(run)
    assert not [path.name for path in run.exported("onnx").glob("*.onnx") if b"graphs.py" in path.read_bytes()]
    pushed = finetune("push", run.exported("onnx"), "org/model", "--dry-run")
    assert pushed.code == 0 and "decoder.onnx.data" in pushed.out, pushed.err
    done = finetune("verify", run.exported("onnx"), "--engine", "onnx")
    assert done.code == 0 and "format onnx: 6 of 6 texts equal" in done.out, (done.out, done.err)
