# %% [markdown]
# # Serve and correct
# Starts a server with OpenAI's API, transcribes a clip, and saves a correction, which becomes training data. It needs
# the extra `serve`.

# %%
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import httpx

while not Path("data/vocabulary").is_dir():
    assert Path.cwd() != Path.cwd().parent, "run it in the folder of the project or below it"
    os.chdir("..")
work = Path(tempfile.mkdtemp())
CLIP = Path("data/vocabulary/audio/canary/canary-001-en-us-f3.opus")

# %% [markdown]
# ## Start
# On a command line: `finetune serve MODEL --corrections DIR`. `/ready` says when it takes requests.

# %%
with socket.socket() as free:
    free.bind(("127.0.0.1", 0))
    port = free.getsockname()[1]
command = [sys.executable, "-m", "finetune", "serve", "data/granite-speech-nano", "--port", str(port)]
server = subprocess.Popen([*command, "--corrections", str(work)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
url = f"http://127.0.0.1:{port}"


def is_ready() -> bool:
    try:
        return httpx.get(f"{url}/ready", timeout=5).status_code == 200
    except httpx.TransportError:
        return False


while not is_ready():
    assert server.poll() is None, "the server has ended; run the command in a terminal to see why"
    time.sleep(0.5)

# %% [markdown]
# ## Transcribe
# Any client of OpenAI's API works; this is one request.

# %%
with CLIP.open("rb") as file:
    form = {"response_format": "verbose_json", "timestamp_granularities[]": "word"}
    answer = httpx.post(f"{url}/v1/audio/transcriptions", files={"file": file}, data=form, timeout=120).json()
print(answer["text"])
print([(word["word"], round(word["start"], 2), round(word["end"], 2)) for word in answer["words"]][:4])

# %% [markdown]
# ## Correct
# The page at the server's address does this with a button. A row is saved with the audio, the machine's text and the
# corrected one.

# %%
segment = {
    "start": 0,
    "end": answer["duration"],
    "text": "we went to the park after lunch",
    "machine_text": answer["text"],
}
with CLIP.open("rb") as file:
    body = {"corrections": json.dumps({"segments": [segment], "language": "en", "file_name": CLIP.name})}
    print(httpx.post(f"{url}/v1/corrections", files={"file": file}, data=body, timeout=60).json())
(saved,) = (json.loads(line) for line in (work / "manifest.jsonl").read_text().splitlines())
print({key: saved[key] for key in ("text", "duration", "language")})

# %% [markdown]
# ## Train on corrections
# The folder is a corpus: `data: {train: [DIR/manifest.jsonl]}`. A server that is
# stopped finishes its requests. Code 143 says that SIGTERM stopped it.

# %%
server.terminate()
print("exit code", server.wait(60))
