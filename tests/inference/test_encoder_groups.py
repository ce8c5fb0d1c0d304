"""Windows of similar lengths are encoded together; the texts do not depend on it."""

import threading
from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest
import torch
from conftest import embedded

from finetune.core.errors import DataError
from finetune.core.options import TranscribeOptions
from finetune.data.manifest import Utterance
from finetune.inference.encode import Waveform, encode_batches, encoder_groups, load_waveforms
from finetune.inference.window_batches import Window, transcribe_windows
from finetune.model.granite import EncodedAudio, SpeechModel


@pytest.mark.parametrize(
    ("durations", "call_cost", "groups"),
    [
        ([], 1.0, []),
        ([3.0, 3.0, 3.0], 1.0, [3]),
        ([30.0, 3.0, 3.0], 1.0, [1, 2]),
        ([30.0, 29.0, 3.0, 2.9, 2.8], 5.0, [2, 3]),
        ([3.0, 2.9, 1.0], 10.0, [3]),  # a call costs more than the padding
    ],
)
def test_groups_have_the_least_padding_and_calls(durations: list[float], call_cost: float, groups: list[int]) -> None:
    assert encoder_groups(durations, call_cost) == groups


@pytest.fixture(scope="module")
def clips() -> list[Utterance]:
    short, long = embedded("canary", 12)[::6], embedded("train", 400)[-2:]
    return [*short, *long, *embedded("canary", 4)[1:]]


def test_texts_and_word_times_are_those_of_each_window_alone(
    model: Callable[[], SpeechModel], clips: list[Utterance]
) -> None:
    network, options = model(), TranscribeOptions()
    prompted = [replace(clip, instruction=options.prompt(network.profile)) for clip in clips]
    windows = [Window(clip, options, load_waveforms) for clip in prompted]
    ((batch, grouped, _),) = encode_batches(network, prompted, 60.0, grouped=True)
    ((same, padded, _),) = encode_batches(network, prompted, 60.0)
    assert batch == same and not torch.equal(grouped.states, padded.states), "the short clips have no padding of states"
    assert torch.equal(grouped.num_frames, padded.num_frames) and grouped.embeds.shape == padded.embeds.shape
    together = transcribe_windows(network, windows, 60.0, grouped=True)
    alone = [transcribe_windows(network, [window], 60.0)[0] for window in windows]
    for one, other in zip(together, alone, strict=True):
        assert [(part.text, part.words) for part, _ in one] == [(part.text, part.words) for part, _ in other]


def test_batches_are_joined_with_zeros_as_padding() -> None:
    def batch(clips: int, frames: int) -> EncodedAudio:
        counts = torch.full((clips,), frames)
        ones = torch.ones(clips, frames, 2)
        return EncodedAudio(ones, counts, ones[:, :1], counts, ones[..., 0])

    joined = EncodedAudio.concat([batch(1, 3), batch(2, 1)])
    assert joined.states[..., 0].tolist() == [[1, 1, 1], [1, 0, 0], [1, 0, 0]]
    assert joined.speech is not None and joined.speech.tolist() == joined.states[..., 0].tolist()
    assert joined.num_frames.tolist() == joined.num_tokens.tolist() == [3, 1, 1] and joined.embeds.shape == (3, 1, 2)


def test_the_next_batch_is_read_while_this_one_is_used(
    model: Callable[[], SpeechModel], clips: list[Utterance]
) -> None:
    """One batch ahead and not more, in another thread; its error comes with its own batch."""
    read, another = list[str](), threading.Event()

    def load(chosen: Sequence[Utterance]) -> list[Waveform]:
        read.append(chosen[0].id)
        if len(read) == 2:
            another.set()
        if len(read) == 3:
            raise DataError("damaged")
        return load_waveforms(chosen)

    batches = encode_batches(model(), clips[:3], 0.1, load)
    next(batches)
    assert another.wait(10) and len(read) == 2
    next(batches)
    with pytest.raises(DataError, match="damaged"):
        next(batches)
    assert not [*encode_batches(model(), [], 60.0)]
