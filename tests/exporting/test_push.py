"""`finetune push` against a stand-in of the hub: what is sent, what is refused, what happens after an interruption."""

import json
import os
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from command import Command
from hub_server import READ_TOKEN, TOKEN, HubServer
from report_facts import SCORE
from safetensors.numpy import save_file

from finetune.cli import push as cli_push
from finetune.cli.arguments import Subparsers
from finetune.core.errors import ModelError
from finetune.core.run_dir import RunDir
from finetune.exporting.adaptation import Adaptation
from finetune.exporting.bundle import transcriber_files
from finetune.exporting.card.usage import ENGINE_USAGE
from finetune.exporting.publish.contents import ADAPTATION_VERSION, LEFT_OUT, public_contents
from finetune.exporting.publish.private_paths import absolute_path, shortened_text, shortened_values
from finetune.exporting.publish.secrets import secret_in
from finetune.exporting.publish.transcripts import transcripts_in
from finetune.exporting.vllm_format import USAGE

REPO = "someone/my-model"
TEXT = "start metoprolol at the lowest dose today"


@pytest.fixture
def hub() -> Iterator[HubServer]:
    server = HubServer()
    yield server
    server.close()


@pytest.fixture
def export(tmp_path: Path) -> Path:
    """A run with two transcripts, and its export with weights in two files."""
    run = RunDir(tmp_path / "run")
    run.manifests.mkdir(parents=True)
    rows = [{"id": "a", "audio_filepath": "a.wav", "duration": 1.0, "text": TEXT}, {"id": "b", "text": "yes please"}]
    run.manifest("train").write_text("".join(json.dumps(row) + "\n" for row in rows))
    folder = run.export
    folder.mkdir()
    for number in (1, 2):
        save_file({"w": np.full(300_000, number, np.float32)}, folder / f"model-0000{number}-of-00002.safetensors")
    (folder / "README.md").write_text("---\nlicense: apache-2.0\n---\n# A model\nhttps://example.org/a/b\n")
    (folder / "config.json").write_text('{"model_type": "granite_speech"}')
    (folder / "adaptation.json").write_text(json.dumps({"recipe": {"data": {"train": ["/srv/private/calls.jsonl"]}}}))
    for name in ("transcribe/__main__.py", "transcribe/finetune/core/files.py"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(transcriber_files()[name])
    (folder / ".eval_results").mkdir()
    (folder / ".eval_results" / "set-default.yaml").write_text("- value: 1\n")
    return folder


def push(hub: HubServer, export: Path, *arguments: object, token: str = TOKEN) -> subprocess.CompletedProcess[str]:
    """The command in a new process, because the client of the hub reads the environment once."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGING"))}
    environment |= {"HF_ENDPOINT": hub.url, "HF_HOME": str(export.parent / "hf"), "HF_HUB_DISABLE_XET": "1"}
    environment |= {"HF_TOKEN": token} if token else {}
    command = [sys.executable, "-m", "finetune", "push", str(export), REPO, *map(str, arguments)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, stdin=subprocess.DEVNULL)


def test_the_files_arrive_in_a_private_repository(hub: HubServer, export: Path) -> None:
    done = push(hub, export, "--yes")
    assert done.returncode == 0, done.stderr
    assert hub.repositories[REPO]["private"] is True
    assert len(hub.repositories[REPO]["commits"]) == 1
    sent = hub.files(REPO)
    local = {path.relative_to(export).as_posix(): path for path in export.rglob("*") if path.is_file()}
    assert sent.keys() == local.keys()
    assert all(sent[name] == path.read_bytes() for name, path in local.items() if name != "adaptation.json")
    assert json.loads(sent["adaptation.json"]) == {"recipe": {"data": {"train": ["calls.jsonl"]}}}
    assert f"{local['README.md'].stat().st_size:>15,}  README.md\n" in done.stdout and "HTTP" not in done.stdout
    assert f"bytes in {len(sent)} files" in done.stdout and "/commit/1" in done.stdout


def test_an_interrupted_push_sends_only_the_rest(hub: HubServer, export: Path) -> None:
    """Nothing is visible before the end, so the repository is empty, and no --update is needed."""
    hub.fail_after = 1
    first = push(hub, export, "--yes")
    assert first.returncode == 1 and "rerun to resume" in first.stderr and "Traceback" not in first.stderr
    assert hub.files(REPO) == {} and len(hub.uploads) == 1
    hub.fail_after = None
    assert push(hub, export, "--yes").returncode == 0
    assert len(hub.uploads) == len(set(hub.uploads)) == 2
    assert "model-00002-of-00002.safetensors" in hub.files(REPO)


def test_a_repository_with_files_needs_update_and_loses_old_weights(hub: HubServer, export: Path) -> None:
    hub.add(REPO, {"model-00003-of-00003.safetensors": b"old", "notes.md": b"mine", "config.json": b"old"})
    refused = push(hub, export, "--yes")
    assert refused.returncode == 1 and "exists and has 3 files; add --update" in refused.stderr
    assert hub.files(REPO)["config.json"] == b"old"
    done = push(hub, export, "--yes", "--update")
    assert done.returncode == 0 and "deleted model-00003-of-00003.safetensors" in done.stdout
    files = hub.files(REPO)
    assert files["notes.md"] == b"mine" and files["config.json"] != b"old"
    assert "model-00003-of-00003.safetensors" not in files and "model-00001-of-00002.safetensors" in files
    again = push(hub, export, "--yes", "--update")
    assert again.returncode == 0 and len(hub.repositories[REPO]["commits"]) == 1


def test_a_merged_model_replaces_all_of_an_adapter_and_of_graphs(hub: HubServer, export: Path) -> None:
    """With a configuration of an adapter beside it, transformers would read the base model instead."""
    old = ("adapter_config.json", "adapter_model.safetensors", "audio.onnx", "decoder.onnx.data")
    hub.add(REPO, dict.fromkeys((*old, "other.onnx"), b"old"))
    assert push(hub, export, "--yes", "--update").returncode == 0
    files = hub.files(REPO)
    assert not files.keys() & {*old} and "other.onnx" in files


def test_public_only_when_asked_for(hub: HubServer, export: Path) -> None:
    hub.add(REPO, {}, private=False)
    refused = push(hub, export, "--yes")
    assert refused.returncode == 1 and "is public" in refused.stderr and hub.files(REPO) == {}
    hub.repositories.clear()
    assert push(hub, export, "--yes", "--public").returncode == 0
    assert hub.repositories[REPO]["private"] is False


def test_a_dry_run_needs_no_hub(hub: HubServer, export: Path) -> None:
    done = push(hub, export, "--dry-run", token="")
    assert done.returncode == 0 and "nothing was sent" in done.stdout and "config.json" in done.stdout
    assert hub.requests == []


@pytest.mark.parametrize(
    ("token", "message"),
    [
        ("", "no access token; run `hf auth login`"),
        ("hf_" + "x" * 34, "the hub refuses the access token"),
        (READ_TOKEN, "no write permission"),
    ],
    ids=["none", "wrong", "read only"],
)
def test_a_token_that_does_not_work(hub: HubServer, export: Path, token: str, message: str) -> None:
    done = push(hub, export, "--yes", token=token)
    assert done.returncode == 1 and message in done.stderr and "Traceback" not in done.stderr
    assert token not in done.stderr or not token
    assert not hub.repositories


def test_the_hub_is_not_there(hub: HubServer, export: Path) -> None:
    hub.close()
    done = push(hub, export, "--yes")
    assert done.returncode == 1 and "rerun to resume" in done.stderr and "Traceback" not in done.stderr


def test_wrong_usage(finetune: Command, export: Path) -> None:
    assert finetune("push", export, "name").code == 2
    assert "OWNER/NAME" in finetune("push", export, "../x/y", "--yes").err
    done = finetune("push", export, REPO)
    assert done.code == 2 and "add --yes" in done.err
    offline = finetune("push", export, REPO, "--yes")
    assert offline.code == 1 and "HF_HUB_OFFLINE is set" in offline.err
    unknown = finetune("push", export, REPO, "--yes", "--run", export)
    assert unknown.code == 1 and "not a run directory" in unknown.err
    assert finetune("push", export.parent / "none", REPO, "--dry-run").code == 1


def test_a_benchmark_replaces_the_results_of_the_folder(finetune: Command, export: Path) -> None:
    assert "not a benchmark" in finetune("push", export, REPO, "--dry-run", "--benchmark", "set").err
    done = finetune("push", export, REPO, "--dry-run", "--benchmark", "org/set:task")
    assert done.code == 1 and "the run was not evaluated" in " ".join(done.err.split())
    both = {"base": SCORE, "adapted": SCORE}
    (export / "adaptation.json").write_text(json.dumps({"scores": {"test": both}}))
    done = finetune("push", export, REPO, "--dry-run", "--benchmark", "org/set:task")
    assert done.code == 0 and ".eval_results/set-task.yaml" in done.out and "set-default" not in done.out


def test_a_record_of_another_version_is_refused(export: Path) -> None:
    assert Adaptation.model_fields["schema_version"].default == ADAPTATION_VERSION
    (export / "adaptation.json").write_text(json.dumps({"schema_version": ADAPTATION_VERSION + 1}))
    with pytest.raises(ModelError, match=r"of another version of the toolkit .schema_version 2.; export the run"):
        public_contents(export, None)


REFUSED = {
    "pytorch_model.bin": "a pickle can run code",
    "optimizer.pt": "a pickle can run code",
    "train.jsonl": "hold data",
    "hypotheses.trn": "hold data",
    ".env": "hidden file",
    "modeling_granite.py": "code that is not part of the export",
    "archive.zip": "no export writes files of this type",
}


@pytest.mark.parametrize("name", REFUSED)
def test_files_that_no_export_has_are_refused(export: Path, name: str) -> None:
    (export / name).write_bytes(b"x")
    with pytest.raises(ModelError, match=rf"(?s)nothing was sent.*{name}: .*{REFUSED[name]}"):
        public_contents(export, None)


SECRET = {
    "hf_" + "aB3" * 12: "Hugging Face",
    "sk-proj-" + "a1" * 15: "API key",
    "AKIA" + "ABCD" * 4: "AWS",
    "ghp_" + "a" * 36: "GitHub",
    "-----BEGIN OPENSSH PRIVATE KEY-----": "a private key",
    "https://me:secret99@example.org/x": "a password in a URL",
    '{"wandb_api_key": "0123456789abcdef0123"}': "a password or key",
    "db_password = 'correcthorse'": "a password or key",
    "Authorization: Bearer abcdefgh12345": "authorization",
    "the value 7f3a9c55": "variable TEST_TOKEN",
}


@pytest.mark.parametrize("text", SECRET)
def test_secrets_are_found_in_every_text(export: Path, text: str) -> None:
    for name in ("README.md", "chat_template.jinja", "transcribe/extra.py", "transcribe/settings.json"):
        path = export / name
        old = path.read_text() if path.exists() else None
        path.write_text(json.dumps({"note": text}) if name.endswith(".json") else f"one\n{text}\n")
        with pytest.raises(ModelError, match=f"{name}: .*{SECRET[text]}") as caught:
            public_contents(export, None, secrets={"the value of the variable TEST_TOKEN": "7f3a9c55"})
        assert text not in str(caught.value)
        path.unlink() if old is None else path.write_text(old)


def test_secrets_are_found_in_the_headers_of_weights(export: Path) -> None:
    save_file({"w": np.ones(4, np.float32)}, export / "model-00001-of-00002.safetensors", {"note": "hf_" + "a" * 34})
    with pytest.raises(ModelError, match="model-00001-of-00002.safetensors: an access token"):
        public_contents(export, None)
    (export / "model.gguf").write_bytes(gguf("/home/someone/models/base.gguf"))
    with pytest.raises(ModelError, match=r"model.gguf: the absolute path /home/someone/models/base.gguf"):
        public_contents(export, None)
    (export / "model.gguf").write_bytes(gguf("hf_" + "a" * 34))
    with pytest.raises(ModelError, match=r"model.gguf: an access token"):
        public_contents(export, None)


def gguf(name: str) -> bytes:
    """A GGUF file with a name, a vocabulary and a tensor; pieces of the vocabulary and the weights look like paths."""

    def text(value: str) -> bytes:
        return struct.pack("<Q", len(value)) + value.encode()

    head = b"GGUF" + struct.pack("<IQQ", 3, 1, 4)
    pieces = text("/usr/bin") + text("/0m/S")
    return (
        head
        + (text("general.name") + struct.pack("<I", 8) + text(name))
        + (text("tokenizer.ggml.tokens") + struct.pack("<IIQ", 9, 8, 2) + pieces)
        + (text("tokenizer.ggml.token_type") + struct.pack("<IIQ2i", 9, 5, 2, 1, 1))
        + (text("general.file_type") + struct.pack("<II", 4, 0))
        + (text("output.weight") + struct.pack("<IQIQ", 1, 2, 0, 0))
        + b"\n/home/x/y\n"
    )


def test_the_weights_of_a_gguf_file_are_no_text(export: Path) -> None:
    whole = gguf("my model")
    (export / "model.gguf").write_bytes(whole)
    assert "model.gguf" in {item.name for item in public_contents(export, None).files}
    for damaged in (whole[:100], b"GGUF\x03\x00", b"GGML" + whole[4:], whole[:4] + b"\xff" * 20):
        (export / "model.gguf").write_bytes(damaged)
        with pytest.raises(ModelError, match=r"model.gguf: cannot be read, so it cannot be checked \(.*GGUF"):
            public_contents(export, None)


def test_usual_texts_are_no_secrets() -> None:
    for text in (
        "token: str | None",
        '"bos_token": "<|end_of_text|>"',
        "https://huggingface.co/a/b",
        "task-" + "a" * 30,
    ):
        assert secret_in(text, {}) == "", text


ABSOLUTE = {
    "/home/someone/clips/a.wav": "a.wav",
    "/mnt/x": "x",
    "~/data/a.wav": "a.wav",
    "C:\\Users\\me\\a.wav": "a.wav",
    "\\\\server\\share\\a.wav": "a.wav",
    "file:///srv/a.wav": "a.wav",
}
RELATIVE = ("runs/a/b", "https://example.org/a/b", "s3://bucket/a/b", "a/b/c", "</s>", "and/or", "/", "../a/b")


@pytest.mark.parametrize("path", ABSOLUTE)
def test_absolute_paths(path: str) -> None:
    assert absolute_path(f"see {path} for details")
    assert absolute_path(json.dumps({"path": path}))
    assert shortened_text(f"see ({path}) for details") == f"see ({ABSOLUTE[path]}) for details"
    assert shortened_values({"paths": [path, {f"canary: {path}": 1}]}) == {
        "paths": [ABSOLUTE[path], {f"canary: {ABSOLUTE[path]}": 1}]
    }


def test_paths_of_the_system_are_in_code() -> None:
    assert absolute_path('open("/proc/cpuinfo"), open("/dev/fd/3")') == ""


@pytest.mark.parametrize("text", [*ENGINE_USAGE.values(), USAGE])
def test_the_texts_of_the_cards_have_no_absolute_path(text: str) -> None:
    assert absolute_path(text) == "", "the export could not be sent after `finetune verify`"


def test_a_path_with_spaces_is_shortened_as_a_value() -> None:
    assert shortened_values("/Users/me/my data/a.wav") == "a.wav"


@pytest.mark.parametrize("text", RELATIVE)
def test_other_texts_are_no_absolute_paths(text: str) -> None:
    assert absolute_path(f"see {text} there") == "" and shortened_text(text) == text == shortened_values(text)


def test_absolute_paths_are_refused_and_an_adapter_needs_a_hub_name(export: Path) -> None:
    (export / "adapter_config.json").write_text('{"base_model_name_or_path": "/srv/models/base"}')
    with pytest.raises(ModelError, match=r"(?s)adapter_config.json: the absolute path /srv/models/base; .*hub name"):
        public_contents(export, None)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("README.md", f"Example: {TEXT.upper()}!"),
        ("limits.json", json.dumps({"x": [{"y": TEXT.replace(" ", ", ")}]})),
        ("chat_template.jinja", TEXT.replace(" ", "\n")),
    ],
)
def test_transcripts_of_the_data_are_refused(export: Path, name: str, text: str) -> None:
    (export / name).write_text(text)
    run = RunDir(export.parent)
    with pytest.raises(ModelError, match=f"{name}: 1 transcript of the data, the first of utterance a of train"):
        public_contents(export, run)
    assert public_contents(export, None).notes[-1].startswith("the run of this export is not known")
    (export / name).write_text(json.dumps("start metoprolol at the lowest price today. yes please"))
    assert public_contents(export, run).files


def test_japanese_transcripts_are_compared_by_characters(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    run.manifests.mkdir()
    run.manifest("test").write_text(json.dumps({"id": "j", "text": "今日は天気がとてもいいですね"}) + "\n")
    assert list(transcripts_in({"a": "例:「今日は天気がとてもいいですね。」", "b": "今日は天気がいい"}, run)) == [
        ("a", "test", "j")
    ]


def test_links_are_refused_and_audio_is_left_out(export: Path, tmp_path: Path) -> None:
    (export / "sample.wav").write_bytes(b"RIFF")
    (export / ".git").mkdir()
    (export / ".git" / "config").write_text("x")
    contents = public_contents(export, None)
    assert set(contents.left_out) == {"sample.wav", ".git"} and ".git" in LEFT_OUT
    (export / "limits.json").symlink_to("/etc/hostname")
    with pytest.raises(ModelError, match=r"limits.json: a symbolic link, which can lead out of the folder"):
        public_contents(export, None)
    (export / "limits.json").unlink()
    (tmp_path / "link").symlink_to(export)
    with pytest.raises(ModelError, match="not a folder"):
        public_contents(tmp_path / "link", None)
    (export / "more").symlink_to(tmp_path)
    with pytest.raises(ModelError, match=r"more: a symbolic link"):
        public_contents(export, None)


def test_code_keys_and_damaged_files_are_refused(export: Path) -> None:
    (export / "tokenizer_config.json").write_text('{"auto_map": {"AutoTokenizer": "x--y.Z"}}')
    (export / "config.json").write_text("{")
    (export / "model-00001-of-00002.safetensors").write_bytes(b"\x80\x04")
    with pytest.raises(ModelError) as caught:
        public_contents(export, None)
    message = str(caught.value)
    assert "tokenizer_config.json: auto_map asks others to run code" in message
    assert "config.json: cannot be read" in message and "00001-of-00002.safetensors: cannot be read" in message


def test_a_folder_without_weights_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="not a folder that `finetune export` has written"):
        public_contents(tmp_path, None)


@pytest.mark.parametrize("weights", ["lora.safetensors", "optimizer.safetensors"])
def test_a_part_of_a_run_that_is_no_export_is_refused(export: Path, weights: str) -> None:
    """`best/` and checkpoints, which only this toolkit reads."""
    folder = export.parent / "best"
    folder.mkdir()
    save_file({"w": np.zeros(3, np.float32)}, folder / weights)
    (export.parent / "resolved.json").touch()
    with pytest.raises(ModelError, match=f"has written; name an export, such as {export}"):
        public_contents(folder, None)


@pytest.mark.parametrize("answer", ["n", ""])
def test_nothing_is_sent_without_a_yes(finetune: Command, export: Path, answer: str) -> None:
    questions = []

    class Asking:
        def add_parser(self, subparsers: Subparsers) -> None:
            cli_push.add_parser(subparsers, lambda question: questions.append(question) or answer)

    done = finetune("push", export, REPO, commands=[Asking()])
    assert done.code == 1 and done.out.endswith("nothing was sent\n") and "config.json" in done.out
    assert questions == [f"send these files to {REPO} (private)? [y/N] "]


def test_a_run_in_the_place_of_its_export_gets_a_suggestion(tmp_path: Path) -> None:
    (tmp_path / "manifests").mkdir()
    (tmp_path / "resolved.json").write_text("{}")
    with pytest.raises(ModelError, match=f"a run directory; name an export in it, such as {tmp_path / 'export'}$"):
        public_contents(tmp_path, None)
