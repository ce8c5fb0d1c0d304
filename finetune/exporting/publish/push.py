"""Sends the checked files of an export to a repository of the Hugging Face Hub, in one commit.

Large files go first, one after the other; they become visible with the commit at the end. So a repository never holds
half a model, and after an interruption the files that the hub has already are not sent again.
"""

import logging
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, constants, get_token
from huggingface_hub.errors import HfHubHTTPError, RepositoryNotFoundError

from finetune.core.errors import FinetuneError, HubError, RecipeError
from finetune.core.extras import DISTRIBUTION
from finetune.core.wording import count
from finetune.exporting.publish.contents import WEIGHTS, PublicFile

log = logging.getLogger(__name__)

REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
LARGE = 1_000_000  # bytes; smaller files go with the commit
OF_THE_HUB = (".gitattributes",)  # files of a new repository
UNAUTHORIZED, FORBIDDEN, TOO_MANY = 401, 403, 429


@dataclass(frozen=True)
class PushResult:
    """A finished push.

    Attributes:
        url: Address of the commit.
        sent: Number of files in the export.
        deleted: Names of weights of an earlier push that this one does not have.
    """

    url: str
    sent: int
    deleted: list[str]


def check_repository(name: str) -> None:
    """Raises RecipeError if a name is not that of a repository."""
    if not REPOSITORY.fullmatch(name) or ".." in name or "--" in name:
        raise RecipeError(f"{name[:200]!r} is not the name of a repository; write OWNER/NAME, such as my-org/my-model")


def push(
    files: list[PublicFile], repository: str, public: bool, update: bool, report: Callable[[str], object], message: str
) -> PushResult:
    """Creates the repository if needed, and sends the files.

    Args:
        files: What is sent, see `public_contents`.
        repository: OWNER/NAME.
        public: Make a new repository public; otherwise it is private.
        update: Replace files of a repository that has files.
        report: Called with a line for each large file.
        message: Of the commit.

    Raises:
        HubError: there is no token, the repository has files and `update` is off, or is public and `public` is off; the
            hub cannot be reached or refuses.
    """
    if constants.HF_HUB_OFFLINE:
        raise HubError("HF_HUB_OFFLINE is set, so nothing can be sent; unset it, then rerun")
    token = get_token()
    if not token:
        raise HubError("no access token; run `hf auth login`, or set HF_TOKEN to a token with write permission")
    api = HfApi(token=token, library_name=DISTRIBUTION)
    with _hub_errors(repository):
        old = _existing(api, repository, public, update)
        additions = [CommitOperationAdd(item.name, str(item.path) if item.path else item.content) for item in files]
        for item, operation in zip(files, additions, strict=True):
            if item.size >= LARGE:
                report(f"sending {item.name} ({item.size / 1e6:,.0f} MB)")
                api.preupload_lfs_files(repository, [operation], free_memory=False)
        sent = {item.name for item in files}
        deleted = sorted(name for name in old if WEIGHTS.fullmatch(name) and name not in sent)
        deletions = [CommitOperationDelete(name) for name in deleted]
        commit = api.create_commit(repository, [*additions, *deletions], commit_message=message)
    return PushResult(str(commit.commit_url), len(files), deleted)


def _existing(api: HfApi, repository: str, public: bool, update: bool) -> list[str]:
    """The files of the repository, which is created if there is none."""
    try:
        info = api.model_info(repository)
    except RepositoryNotFoundError:
        api.create_repo(repository, private=not public)
        log.info("created %s (%s)", repository, "public" if public else "private")
        return []
    names = [item.rfilename for item in info.siblings or [] if item.rfilename not in OF_THE_HUB]
    if names and not update:
        raise HubError(
            f"{repository} exists and has {count(len(names), 'file')}; add --update to replace them, or choose "
            "another name"
        )
    if not info.private and not public:
        raise HubError(
            f"{repository} is public, and a push is private by default; add --public, or make it private on its page"
        )
    if info.private and public:
        log.warning("%s stays private; its page on the hub can make it public", repository)
    return names


@contextmanager
def _hub_errors(repository: str) -> Iterator[None]:
    """Turns errors of the hub, of the network and of its client into a HubError."""
    try:
        yield
    except FinetuneError:
        raise
    except Exception as error:
        raise HubError(f"{repository}: {_reason(error)}") from error


def _reason(error: Any) -> str:
    code = error.response.status_code if isinstance(error, HfHubHTTPError) and error.response is not None else 0
    text = " ".join(str(error).split())[:500]
    if code == UNAUTHORIZED:
        return f"the hub refuses the access token; run `hf auth login`, or set HF_TOKEN ({text})"
    if code == FORBIDDEN:
        return f"the access token has no write permission here ({text})"
    if code == TOO_MANY:
        return f"the hub limits requests; rerun later ({text})"
    return f"{text or type(error).__name__}; rerun to resume: files that the hub has already are not sent again"
