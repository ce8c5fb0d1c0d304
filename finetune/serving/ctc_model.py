"""The CTC head of a served model as a model of its own for the scheduler: partial texts of live audio."""

from collections.abc import Sequence

from finetune.inference.encode import encode_batches
from finetune.inference.guards import ctc_text, speech_score
from finetune.inference.recognize import Hypothesis
from finetune.inference.segments import Segment
from finetune.inference.window_batches import Result, Window
from finetune.serving.models import ServedModel


class CtcModel:
    """The text of the CTC head of a model, for the scheduler."""

    def __init__(self, model: ServedModel) -> None:
        self.name, self._model = f"{model.name} (CTC)", model

    def transcribe(self, windows: Sequence[Window], batch_seconds: float) -> list[Result]:
        """A segment with the text of each window; none if there is no speech in it."""
        self._model.activate()
        network = self._model.network
        results: list[Result] = [[] for _ in windows]
        utterances = [window.utterance for window in windows]
        waves = {id(item.utterance): item.load([item.utterance])[0] for item in windows}
        for batch, audio, _ in encode_batches(
            network, utterances, batch_seconds, lambda chosen: [waves[id(item)] for item in chosen]
        ):
            log_probs = network.ctc_logits(audio.states).float().log_softmax(-1)
            for row, index in enumerate(batch):
                evidence = log_probs[row, : int(audio.num_frames[row])].cpu().numpy()
                text = " ".join(ctc_text(evidence)[0].split())
                item = utterances[index]
                if text and speech_score(evidence) >= windows[index].options.no_speech:
                    segment = Segment(item.offset, item.offset + item.duration, text)
                    results[index] = [(segment, Hypothesis(item.id, text, (), 0.0))]
        return results
