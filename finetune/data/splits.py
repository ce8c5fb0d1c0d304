"""The splits of a recipe's data, in the order in which they are prepared."""

TRAINING_SPLITS, SCORED_SPLITS = ("train", "replay"), ("valid", "test", "canary")
SPLITS = (*TRAINING_SPLITS, *SCORED_SPLITS)
