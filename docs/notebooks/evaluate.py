# %% [markdown]
# # Evaluate and compare
# Scores two systems on the same clips and tests whether their difference is more than chance. The first is the embedded
# model. The second is a file of hypotheses, so it can come from any recognizer, also from a service.

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
CLIPS = 16

# %% [markdown]
# ## Clips with references
# Absolute paths, because this manifest is not in the folder of the audio.

# %%
lines = Path("data/vocabulary/canary.jsonl").read_text().strip().split("\n")[:CLIPS]
rows = [json.loads(line) for line in lines]
for row in rows:
    row["audio_filepath"] = str(Path("data/vocabulary", row["audio_filepath"]).resolve())
manifest = work / "clips.jsonl"
manifest.write_text("".join(json.dumps(row) + "\n" for row in rows))
print(len(rows), "clips,", len({row["speaker"] for row in rows}), "voices:", rows[0]["text"])

# %% [markdown]
# ## Hypotheses of another recognizer
# A JSON Lines file with `id` and `pred_text`. Here it has the references, without the last word of every second clip.

# %%
other = work / "other.jsonl"
texts = [row["text"].rpartition(" ")[0] if index % 2 else row["text"] for index, row in enumerate(rows)]
pairs = [{"id": row["id"], "pred_text": text} for row, text in zip(rows, texts, strict=True)]
other.write_text("".join(json.dumps(pair) + "\n" for pair in pairs))
print(pairs[1])

# %% [markdown]
# ## Scores, intervals and a test
# Every system is compared with the first one, on the same clips. `docs/statistics.md` explains the interval and p.

# %%
result = finetune.compare(["data/granite-speech-nano", other], manifest)
for number, scores in enumerate(result.systems.values(), 1):
    low, high = 100 * scores.interval.low, 100 * scores.interval.high
    print(
        f"system {number}: WER {100 * scores.wer:.1f} % ({low:.1f} to {high:.1f}), "
        f"{scores.utterances_wrong} clips with an error"
    )
for comparison in result.comparisons.values():
    print(f"difference {100 * comparison.difference:+.1f} points, p = {comparison.p_holm:.3f}: {comparison.verdict}")

# %% [markdown]
# ## In continuous integration
# A condition that holds is in `fired`; on the command line, `finetune compare --fail-if` then exits with 1.

# %%
checked = finetune.compare(["data/granite-speech-nano", other], manifest, fail_if=["wer > base + 0.2"])
print(len(checked.fired), "condition holds")
