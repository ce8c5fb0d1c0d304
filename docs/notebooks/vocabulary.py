# %% [markdown]
# # Adapt to your vocabulary
# Trains the embedded model on clips with rare terms, and shows how many of the terms it recognizes before and after. It
# needs no GPU and no download. The embedded model is small and a few clips are not enough: the notebook shows the
# steps, and `recipes/quickstart.yaml` trains on all clips. For your own vocabulary, replace manifests and terms.

# %%
import json
import os
import tempfile
from pathlib import Path

import finetune

while not Path("data/vocabulary").is_dir():
    assert Path.cwd() != Path.cwd().parent, "run it in the folder of the project or below it"
    os.chdir("..")
work = Path(tempfile.mkdtemp())

# %% [markdown]
# ## The data
# A manifest has one JSON object a line. `docs/corpora.md` lists the other formats. `terms.txt` has one term a line.

# %%
terms = Path("data/vocabulary/terms.txt").read_text().splitlines()
row = json.loads(Path("data/vocabulary/train.jsonl").read_text().split("\n")[0])
print(len(terms), "terms such as", ", ".join(terms[:3]))
print({key: row[key] for key in ("audio_filepath", "duration", "text")})

# %% [markdown]
# ## The recipe
# `goal: vocabulary` is a preset of what trains. `replay` mixes in general speech, and `canary` shows what the model
# forgets. `max_clips` keeps this notebook short: leave it out.


# %%
def some(split: str, clips: int) -> list[dict[str, object]]:
    return [{"path": f"data/vocabulary/{split}.jsonl", "max_clips": clips}]


recipe = finetune.Recipe(
    name="vocabulary",
    runs=str(work),
    model={"base": "data/granite-speech-nano"},
    data={
        "train": some("train", 200),
        "replay": some("replay", 20),
        "valid": some("valid", 4),
        "test": some("test", 24),
        "canary": some("canary", 6),
        "terms": "data/vocabulary/terms.txt",
        "max_duration": 7.5,
    },
    train={"goal": "vocabulary", "epochs": 1, "batch_seconds": 7.5, "learning_rate": 1e-3},
    evaluate={"probes": False, "replicas": 200},
    machine={"processes": 1},
)
result = finetune.train(recipe)
print(f"{result.steps} steps; {result.trained_parameters:,} of {result.total_parameters:,} parameters trained")

# %% [markdown]
# ## Before and after
# With 24 clips the intervals are wide. Terms are scored apart if they are in the training texts ("seen").

# %%
results = finetune.evaluate(recipe)
for name, scores in results.scores.items():
    for system in ("base", "adapted"):
        one = getattr(scores, system)
        low, high = 100 * one.interval.low, 100 * one.interval.high
        print(f"{name:8}{system:9}WER {100 * one.wer:5.1f} % (95 % interval {low:.1f} to {high:.1f})")
for system in ("base", "adapted"):
    seen = getattr(results.scores["test"], system).terms.seen
    print(f"recall of seen terms, {system}: {seen.recall:.0%} of {seen.support}")
