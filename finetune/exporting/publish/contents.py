"""The files of an export that `finetune push` sends, and the checks of each: nothing private, nothing that runs."""

import json
import re
import stat
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from finetune.core.errors import ModelError
from finetune.core.files import read_bytes, read_json
from finetune.core.model_limits import ADAPTATION
from finetune.core.run_dir import RunDir
from finetune.exporting.bundle import transcriber_files
from finetune.exporting.publish.gguf_text import gguf_text
from finetune.exporting.publish.private_paths import absolute_path, shortened_values
from finetune.exporting.publish.secrets import secret_in, secret_values
from finetune.exporting.publish.transcripts import transcripts_in
from finetune.model.folder_checks import ADAPTER_CONFIG, CODE_KEYS, read_header

BINARY = (".safetensors", ".gguf", ".onnx")
RAW = (".onnx.data",)  # values of weights, without text
TEXT = (".json", ".jinja", ".md", ".txt", ".yaml", ".yml", ".model", ".svg")
IMAGES = (".png", ".jpg", ".jpeg", ".webp")
NAMES = ("LICENSE", "NOTICE", ".gitattributes")
AUDIO = (".wav", ".flac", ".mp3", ".ogg", ".opus", ".m4a", ".aac", ".webm", ".wma", ".mp4")  # not sent
DATA = (".jsonl", ".csv", ".tsv", ".parquet", ".arrow", ".srt", ".vtt", ".trn", ".stm", ".ctm", ".html", ".npz", ".tar")
PICKLES = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".npy", ".joblib")
# Of every format. transformers reads the base model that an `adapter_config.json` names, also beside merged weights.
WEIGHTS = re.compile(
    r"(?:model|adapter_model|mmproj|granite-speech)[^/]*\.(?:safetensors|gguf)(?:\.index\.json)?|adapter_config\.json"
    r"|(?:audio|embedding|decoder)\.onnx(?:\.data)?"
)
RESULTS = ".eval_results/"
ADAPTATION_VERSION = 1  # the `schema_version` of `Adaptation`
HIDDEN = (".eval_results", ".gitattributes")
LEFT_OUT = (".git", ".cache", "__pycache__")
VOCABULARY = ("tokenizer.json", "vocab.json", "merges.txt", "tokenizer.model")  # pieces of text can look like a path
MAX_TEXT = 200_000_000  # bytes of a text file
METADATA = 64_000_000  # first bytes of an ONNX file, with its metadata
TEXTS_IN_BYTES = 6  # printable characters in a row that count as text in a binary file


@dataclass(frozen=True)
class PublicFile:
    """A file that will be sent.

    Attributes:
        name: Its path in the repository.
        path: The file; None if `content` is sent.
        size: Its size in bytes.
        content: The content that is sent instead of that of a file.
    """

    name: str
    path: Path | None
    size: int
    content: bytes = b""


@dataclass(frozen=True)
class Contents:
    """What is sent, and what is not.

    Attributes:
        files: In the order of their names.
        left_out: Names of files that are not sent, with the reason.
        notes: What a user should know about the files.
    """

    files: list[PublicFile]
    left_out: dict[str, str]
    notes: list[str]


def public_contents(
    folder: Path, run: RunDir | None, result: tuple[str, str] | None = None, secrets: Mapping[str, str] | None = None
) -> Contents:
    """The files of an exported folder that are sent, all checked.

    Args:
        folder: An export of any format.
        run: The run with the manifests whose transcripts must not be sent; None if it is not known.
        result: Name and text of a file that is sent instead of the `.eval_results/` of the folder.
        secrets: Values that must not be sent; None is those of the environment.

    Raises:
        ModelError: the folder is not an export, or a file must not be sent. The message names every such file.
        DataError: a manifest of the run is damaged.
    """
    if folder.is_symlink() or not folder.is_dir():
        raise ModelError(f"{folder}: not a folder; name a folder that `finetune export` has written")
    if (folder / "resolved.json").is_file() and (folder / "manifests").is_dir():
        raise ModelError(f"{folder}: a run directory; name an export in it, such as {folder / 'export'}")
    entries, left_out, problems = _find(folder)
    problems += _other_version(folder)
    if not any(item.name.endswith(BINARY) and WEIGHTS.fullmatch(item.name) for item in entries):
        hint = f"; name an export, such as {folder.resolve().parent / 'export'}"
        hint *= (folder.resolve().parent / "resolved.json").is_file()  # `best/` or a checkpoint of a run
        problems.append(
            "no model*.safetensors, adapter_model.safetensors, *.gguf or *.onnx: this is not a folder that "
            f"`finetune export` has written{hint}"
        )
    if result is not None:
        name, content = result[0], result[1].encode()
        entries = [item for item in entries if not item.name.startswith(RESULTS)]
        entries.append(PublicFile(name, None, len(content), content))
    files, notes = [_public(item) for item in entries], list[str]()
    if any(item.name == ADAPTATION and item.content for item in files):
        notes.append(f"{ADAPTATION}: paths of this machine are replaced by the names of their files")
    values = secret_values() if secrets is None else secrets
    texts = dict[str, str]()
    for item in files:
        if _is_own_code(folder, item):
            continue
        texts[item.name] = text = _text(item, problems)
        problems += _problems(item, text, values)
    if run is None:
        notes.append("the run of this export is not known, so files were not compared with transcripts; see --run")
    else:
        problems += _transcripts(texts, run)
    if problems:
        shown = "\n".join(f"  {problem}" for problem in problems)
        raise ModelError(f"{folder}: nothing was sent, because of\n{shown}")
    return Contents(files, left_out, notes)


def _find(folder: Path) -> tuple[list[PublicFile], dict[str, str], list[str]]:
    """Files by name, files that are left out, and problems. Links are never followed."""
    files, left_out, problems = list[PublicFile](), dict[str, str](), list[str]()
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        parts = PurePosixPath(name).parts
        mode = path.lstat().st_mode
        if parts[0] in LEFT_OUT or "__pycache__" in parts:
            if len(parts) == 1:
                left_out[name] = "not part of a model"
        elif stat.S_ISLNK(mode):
            problems.append(f"{name}: a symbolic link, which can lead out of the folder; replace it by the file")
        elif stat.S_ISDIR(mode):
            continue
        elif not stat.S_ISREG(mode):
            problems.append(f"{name}: not a regular file")
        elif path.suffix.lower() in AUDIO:
            left_out[name] = "audio"
        elif reason := _refused(parts):
            problems.append(f"{name}: {reason}")
        else:
            files.append(PublicFile(name, path, path.stat().st_size))
    return files, left_out, problems


def _refused(parts: tuple[str, ...]) -> str:
    """Why a file of this name is not sent; "" if it can be."""
    name, suffix = parts[-1], PurePosixPath(parts[-1]).suffix.lower()
    if any(part.startswith(".") and part not in HIDDEN for part in parts):
        return "a hidden file, which can hold passwords; move it away"
    if suffix in PICKLES:
        return "a pickle can run code when it is loaded; move it away"
    if suffix in DATA:
        return "files of this type hold data, such as transcripts; move it away"
    if suffix == ".py" and parts[0] != "transcribe":
        return "code that is not part of the export; move it away"
    if suffix in (*BINARY, *TEXT, *IMAGES, ".py") or name in NAMES or name.endswith(RAW):
        return ""
    return "no export writes files of this type; move it away"


def _other_version(folder: Path) -> list[str]:
    """The problem of a record of another version, which commands that get the model refuse."""
    with suppress(OSError, ValueError, AttributeError):  # none, or damaged, which is reported with its text
        version = read_json(folder / ADAPTATION).get("schema_version", ADAPTATION_VERSION)
        if version != ADAPTATION_VERSION:
            return [f"{ADAPTATION}: of another version of the toolkit (schema_version {version}); export the run again"]
    return []


def _public(item: PublicFile) -> PublicFile:
    """The file with its public content."""
    if item.name != ADAPTATION or item.path is None:
        return item
    try:
        stored = json.loads(read_bytes(item.path, MAX_TEXT))
    except (OSError, ValueError, RecursionError):
        return item  # reported with its text
    content = shortened_values(stored)
    if content == stored:
        return item
    written = (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode()
    return PublicFile(item.name, None, len(written), written)


def _is_own_code(folder: Path, item: PublicFile) -> bool:
    """Whether a file is an unchanged part of this toolkit, which holds no data."""
    source = transcriber_files().get(item.name)
    return source is not None and item.path is not None and read_bytes(folder / item.name, MAX_TEXT) == source


def _text(item: PublicFile, problems: list[str]) -> str:
    """The text in a file: all of a text file with the strings of JSON, the header of a binary one."""
    suffix = PurePosixPath(item.name).suffix.lower()
    if suffix in IMAGES or item.name.endswith(RAW):
        return ""
    try:
        if suffix == ".safetensors" and item.path:
            return json.dumps(read_header(item.path)[0], ensure_ascii=False)
        if suffix == ".gguf" and item.path:
            return gguf_text(item.path)
        if suffix == ".onnx" and item.path:
            with item.path.open("rb") as file:
                return _printable(file.read(METADATA))
        content = item.content or read_bytes(item.path or item.name, MAX_TEXT)
        if suffix == ".model":
            return _printable(content)
        text = content.decode("utf-8")
        if suffix == ".json":
            text = "\n".join([text, *_strings(json.loads(text))])
        return text
    except (OSError, ValueError, RecursionError, ModelError) as error:
        problems.append(f"{item.name}: cannot be read, so it cannot be checked ({str(error)[:200]})")
        return ""


def _printable(content: bytes) -> str:
    runs, run = list[str](), bytearray()
    for line in content.translate(bytes(c if 32 <= c < 127 else 10 for c in range(256))).split(b"\n"):
        run = bytearray(line)
        if len(run) >= TEXTS_IN_BYTES:
            runs.append(run.decode("ascii"))
    return "\n".join(runs)


def _strings(content: object) -> Iterable[str]:
    if isinstance(content, str):
        yield content
    elif isinstance(content, dict):
        for key, value in content.items():
            yield str(key)
            yield from _strings(value)
    elif isinstance(content, list):
        for value in content:
            yield from _strings(value)


def _problems(item: PublicFile, text: str, values: Mapping[str, str]) -> list[str]:
    problems = list[str]()
    if secret := secret_in(text, values):
        problems.append(f"{item.name}: {secret}")
    if PurePosixPath(item.name).name not in VOCABULARY and (path := absolute_path(text)):
        advice = "; base_model_name_or_path must be a hub name, so that others can load the adapter"
        problems.append(f"{item.name}: the absolute path {path[:200]}" + advice * (item.name == ADAPTER_CONFIG))
    if item.name.endswith(".json") and "/" not in item.name and (key := _code_key(text)):
        problems.append(f"{item.name}: {key} asks others to run code of this repository; remove it")
    return problems


def _code_key(text: str) -> str:
    return next((key for key in CODE_KEYS if f'"{key}"' in text), "")


def _transcripts(texts: Mapping[str, str], run: RunDir) -> list[str]:
    first, counts = dict[str, str](), dict[str, int]()
    for name, split, key in transcripts_in(texts, run):
        first.setdefault(name, f"{key} of {split}")
        counts[name] = counts.get(name, 0) + 1
    return [
        f"{name}: {counts[name]} transcript{'s' * (counts[name] > 1)} of the data, the first of utterance {example}"
        for name, example in first.items()
    ]
