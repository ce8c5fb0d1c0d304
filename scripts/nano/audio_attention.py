"""A loss that leads attention to where each token of a transcript is heard.

The CTC head of the encoder says when each character is spoken. The position that predicts a token must attend to the
audio embeddings of its characters: the loss is minus the logarithm of that attention, as a mean over the heads of the
two middle layers. Without it a small model needs many thousand steps until its text follows the audio.
"""

from collections.abc import Sequence
from functools import cache
from itertools import accumulate, chain

import torch
from torch import Tensor

from finetune.model.ctc import BLANK, to_labels
from finetune.model.granite import SpeechModel
from finetune.training.copy_loss import CopiedTokens, CopyLoss, predicting
from nano.encoder import ctc_text
from nano.tasks import Example

NEVER = -1e9
NEAR = 2  # audio embeddings before and after a token that count too

Spans = list[tuple[int, int, int]]  # number of a token, and its first and last audio embedding


class AudioAttentionLoss:
    """Computes the loss of a batch from the attention that a `CopyLoss` has recorded.

    Args:
        model: the model.
        recorder: of its language model.
    """

    def __init__(self, model: SpeechModel, recorder: CopyLoss) -> None:
        self.model, self.recorder = model, recorder
        self.piece = cache(lambda token: to_labels(ctc_text(model.tokenizer.decode([token])))[0])
        middle = len(model.language_model.layers) // 2
        self.layers = [layer for layer in recorder.layers if layer in (middle - 1, middle)]

    def __call__(self, ids: Tensor, labels: Tensor, spans: Sequence[Spans]) -> tuple[Tensor, int]:
        """The loss of the recorded forward pass, summed over the tokens that are heard, and their number.

        Args:
            ids: (B, L) prompts with targets.
            labels: (B, L) token ids of the targets.
            spans: of each row.
        """
        queries, _ = predicting(labels)
        is_audio = ids == self.model.audio_token_id
        starts, counts = is_audio.int().argmax(1).tolist(), is_audio.sum(1).tolist()
        places = torch.zeros(*queries.shape, ids.shape[1], dtype=torch.bool)
        for row, (start, count) in enumerate(zip(starts, counts, strict=True)):
            for number, first, last in spans[row]:
                places[row, number, start + max(0, first - NEAR) : start + min(count, last + NEAR + 1)] = True
        loss = self.recorder.attention_loss(ids, CopiedTokens(queries, places), self.layers)
        return loss, int(places.any(2).sum())

    @torch.no_grad()
    def spans(self, ctc: Tensor, frames: Tensor, examples: Sequence[Example]) -> list[Spans]:
        """Where each token is heard; nothing for translations, and for clips that are too short for their text.

        Args:
            ctc: logits (B, T, 348) of the CTC head.
            frames: (B,) frames without padding.
            examples: what is written for each.
        """
        pieces = [
            [] if ">" in example.group else [self.piece(token) for token in example.target[:-1]] for example in examples
        ]
        paths = best_paths(ctc.float().log_softmax(-1), frames, [list(chain.from_iterable(each)) for each in pieces])
        frames_each = self.model.window // self.model.queries
        result = list[Spans]()
        for each, path in zip(pieces, paths, strict=True):
            ends = list(accumulate(map(len, each)))
            result.append(
                [
                    (number, path[end - len(piece)][0] // frames_each, path[end - 1][1] // frames_each)
                    for number, (piece, end) in enumerate(zip(each, ends, strict=True))
                    if piece and path
                ]
            )
        return result


def best_paths(log_probs: Tensor, frames: Tensor, labels: Sequence[Sequence[int]]) -> list[list[tuple[int, int]]]:
    """First and last frame of each label on the most probable CTC path; an empty list if there is no path.

    Args:
        log_probs: (B, T, V).
        frames: (B,) frames without padding.
        labels: of each clip.
    """
    expected = torch.full((len(labels), 2 * max(map(len, labels)) + 1), BLANK)
    for row, each in enumerate(labels):
        expected[row, 1 : 2 * len(each) : 2] = torch.tensor(each, dtype=torch.long)
    emitted = log_probs.gather(2, expected[:, None].expand(-1, log_probs.shape[1], -1))
    no_skip = torch.ones(expected.shape, dtype=torch.bool)
    no_skip[:, 3::2] = expected[:, 3::2] == expected[:, 1:-2:2]
    scores = torch.full(expected.shape, NEVER)
    scores[:, :2] = emitted[:, 0, :2]
    origins, ends = [torch.zeros(expected.shape, dtype=torch.uint8)], scores.clone()
    for time in range(1, log_probs.shape[1]):
        shifted = torch.nn.functional.pad(scores, (2, 0), value=NEVER)
        best, origin = torch.stack([scores, shifted[:, 1:-1], shifted[:, :-2].masked_fill(no_skip, NEVER)]).max(0)
        scores = best + emitted[:, time]
        origins.append(origin.to(torch.uint8))
        ends = torch.where((frames == time + 1)[:, None], scores, ends)
    moves = torch.stack(origins, 1)
    return [_trace(moves[row, :count], ends[row], len(labels[row])) for row, count in enumerate(frames.tolist())]


def _trace(moves: Tensor, ends: Tensor, count: int) -> list[tuple[int, int]]:
    """The first and last frame of each of `count` labels, from the end of the path to its beginning."""
    if not count or float(ends[2 * count - 1 : 2 * count + 1].max()) < NEVER / 2:
        return []
    steps, state = moves.tolist(), 2 * count - int(ends[2 * count - 1] > ends[2 * count])
    bounds = [(-1, -1)] * count
    for time in range(len(steps) - 1, -1, -1):
        if state % 2:
            last = bounds[state // 2][1]
            bounds[state // 2] = (time, last if last >= 0 else time)
        state -= steps[time][state]
    return bounds
