"""Checks what a model name means, a folder or a name on the hub, before torch and transformers are imported.

Their import takes seconds. This file does not import them, so that a wrong name or a damaged folder fails at once.
"""

import difflib
import logging
import os
import re
import shlex
from pathlib import Path

from finetune.core.errors import ModelError
from finetune.core.layouts import hub_name_hint
from finetune.model.folder_checks import check_folder

log = logging.getLogger(__name__)

EMBEDDED = "data/granite-speech-nano"  # in the source tree


def check_source(source: str, revision: str | None = None) -> None:
    """Refuses a folder that is not a complete model, and a hub name whose config.json cannot be read.

    Raises:
        ModelError: what is wrong, and what to do.
    """
    folder = Path(source)
    if not is_folder_name(source):
        _check_hub_name(source, revision)
        return
    if not (folder / "config.json").exists():
        problem = "no config.json in this folder"
        if not folder.is_dir():
            problem = "a file" if folder.exists() else "no such folder"
        raise ModelError(f"{source[:200]}: {problem}; {model_suggestion(folder)}")
    check_folder(folder)


def check_spelling(source: str) -> None:
    """Refuses a name that is neither a folder nor OWNER/NAME, without asking the hub.

    Raises:
        ModelError: what is wrong, and what to do.
    """
    if is_folder_name(source):
        check_source(source)
    elif source == EMBEDDED:  # it has the form of a hub name
        raise ModelError(
            f"{source}: no such folder in {Path.cwd()}; give the path of the embedded model in the source tree "
            "(`finetune demo DIR` copies it to DIR)"
        )
    elif not re.fullmatch(r"[\w.-]+/[\w.-]+", source):
        raise ModelError(
            f"{source}: no such folder, and not a name of the hub, which is OWNER/NAME\n{hub_name_hint(source)}\n"
            f"the embedded model is the folder {EMBEDDED} of the source tree"
        )


def is_folder_name(source: str) -> bool:
    """Whether a model source is a local folder and not a hub name, which has at most one slash.

    Raises:
        ModelError: the source is empty, too long or has a null byte.
    """
    if not source:
        raise ModelError("the name of the model is empty; give a model folder or a hub name")
    try:
        exists = Path(source).exists()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "the name has a null byte"
        raise ModelError(f"{source[:60]!r}: not the name of a model ({reason})") from error
    return exists or source.startswith((".", "/", "~")) or source.count("/") > 1


def _check_hub_name(source: str, revision: str | None) -> None:
    """Finds config.json of a hub name in the local cache or on the hub."""
    from huggingface_hub import hf_hub_download, is_offline_mode
    from huggingface_hub.errors import (
        EntryNotFoundError,
        GatedRepoError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    off = "the hub is off: HF_HUB_OFFLINE" if is_offline_mode() else "the hub does not answer"
    try:
        _work_offline_without_hub(source, revision)
        hf_hub_download(source, "config.json", revision=revision)
    except GatedRepoError as error:
        raise ModelError(f"{source}: the hub gives this model only after a login; run `hf auth login`") from error
    except RevisionNotFoundError as error:
        raise ModelError(f"{source}: the hub has this model, but not the revision {revision!r}") from error
    except LocalEntryNotFoundError as error:
        raise _not_found(source, f"in the local cache ({off})") from error
    except EntryNotFoundError as error:
        raise ModelError(f"{source}: the hub has no config.json for this name, so it is not a model") from error
    except (RepositoryNotFoundError, ValueError) as error:  # also not a name that the hub can have
        raise _not_found(source, "on the hub") from error
    except Exception as error:  # of the network, the proxy or the disk
        raise ModelError(f"{source}: no such folder, and the hub fails ({excerpt(error)})") from error


def _work_offline_without_hub(source: str, revision: str | None) -> None:
    """Sets HF_HUB_OFFLINE, here and for child processes, if the hub cannot be reached.

    Else each file that is asked for waits for six attempts, about 25 s, before it is taken from the local cache.
    """
    from huggingface_hub import constants, get_hf_file_metadata, hf_hub_url, is_offline_mode
    from huggingface_hub.errors import HfHubHTTPError

    if is_offline_mode():
        return
    try:
        get_hf_file_metadata(hf_hub_url(source, "config.json", revision=revision))
    except (HfHubHTTPError, ValueError):
        return  # an answer, or a name that the hub cannot have: the caller asks again and explains it
    except Exception as error:  # of the network or the proxy
        log.warning("the hub cannot be reached (%s); the local cache is used", excerpt(error))
        constants.HF_HUB_OFFLINE = True
        os.environ["HF_HUB_OFFLINE"] = "1"


def _not_found(source: str, place: str) -> ModelError:
    """A name such as `data/nano` can be a folder or a hub name."""
    folder = Path(source)
    is_path = folder.parent != Path() and folder.parent.is_dir()
    hint = model_suggestion(folder) if is_path else f"check the path or the name\n{hub_name_hint(source)}"
    return ModelError(f"{source}: no such folder, and no such model {place}; {hint}")


def model_suggestion(folder: Path) -> str:
    """The end of a message about a folder that is not a model: the run's export, a similar name, or general advice."""
    if folder.suffix in (".yaml", ".yml") and folder.is_file():
        return f"for the model of a recipe, give the export of its run, such as {Path('runs', folder.stem, 'export')}"
    for run in (folder, folder.parent):
        if (run / "export" / "config.json").is_file():
            return f"did you mean {run / 'export'}?"
        if (run / "resolved.json").is_file():
            command = shlex.join(["finetune", "export", str(run / "resolved.json")])
            return f"{run} is a run without an export; run `{command}` first"
    names = [path.name for path in folder.parent.iterdir()] if folder.parent.is_dir() else []
    similar = difflib.get_close_matches(folder.name, names, 1) if not folder.exists() else []
    return f"did you mean {folder.parent / similar[0]}?" if similar else "give a model folder or a hub name"


def excerpt(error: Exception) -> str:
    """The message of a library's error, short and on one line."""
    return " ".join(f"{type(error).__name__}: {error}".split())[:500]
