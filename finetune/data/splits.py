"""The splits of a recipe's data, in the order in which they are prepared."""

TRAINING_SPLITS, SCORED_SPLITS = ("train", "replay"), ("valid", "test", "canary")
SPLITS = (*TRAINING_SPLITS, *SCORED_SPLITS)
SPLIT_COLUMNS = ("split", "subset", "partition")  # that state the split of each row
_STATED = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("valid", "validation", "val", "dev", "development"), "valid"),
    **dict.fromkeys(("test", "testing", "eval", "evaluation"), "test"),
}


def stated_split(value: object) -> str:
    """The split that a cell of SPLIT_COLUMNS names: train, valid or test; "" for anything else."""
    return _STATED.get(str(value).strip().lower(), "")
