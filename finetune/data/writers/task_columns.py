"""The columns of a corpus that say what a model must write for a clip, and how often the clip trains."""

from finetune.data.manifest import PROMPT_COLUMNS, Utterance, manifest_row

COLUMNS = (*PROMPT_COLUMNS, "sampling_weight")


def task_columns(utterance: Utterance) -> dict[str, object]:
    """The values of COLUMNS that a manifest has: not those of a transcription with the weight 1."""
    return {name: value for name, value in manifest_row(utterance).items() if name in COLUMNS}
