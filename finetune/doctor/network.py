"""Checks of the Hugging Face Hub and of the trackers."""

import netrc
import os
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from urllib.parse import urlsplit

import requests

from finetune.doctor.finding import Finding, failed, passed, skipped, warned

HUB, SECONDS = "https://huggingface.co", 5.0
TRUE = {"1", "true", "yes", "on"}
WANDB_ONLINE = {"online", "run", "shared"}
Environment = Mapping[str, str]


def answers(address: str) -> str:
    """The reason that a server does not answer; "" if it does."""
    try:
        requests.head(address, timeout=SECONDS, allow_redirects=True)
    except requests.RequestException as error:
        return type(error).__name__
    return ""


def check_hub(environment: Environment = os.environ, answers: Callable[[str], str] = answers) -> Finding:
    """Whether models and data sets can be downloaded."""
    address = environment.get("HF_ENDPOINT", HUB)
    if environment.get("HF_HUB_OFFLINE", "").lower() in TRUE:
        return passed("hub", "offline mode (HF_HUB_OFFLINE): models come from folders and from the cache")
    if reason := answers(address):
        return warned(
            "hub", f"{address} does not answer ({reason})", "check proxy and network; offline, set HF_HUB_OFFLINE=1"
        )
    return passed("hub", f"{urlsplit(address).netloc} answers")


def check_hub_cache(environment: Environment = os.environ) -> Finding:
    """The folder of downloaded models."""
    home = Path(environment.get("HF_HOME") or Path(environment.get("XDG_CACHE_HOME", "~/.cache")) / "huggingface")
    place = Path(environment.get("HF_HUB_CACHE") or home / "hub")
    try:
        place = place.expanduser()
        place.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=place):
            pass
    except OSError as error:
        reason = f"{place}: cannot be written ({error.strerror})"
        return failed("hub cache", reason, "set HF_HOME to a folder that you can write")
    except RuntimeError:  # "~" of a user without a home, as in some containers
        return failed(
            "hub cache", f"{place}: this user has no home folder", "set HF_HOME to a folder that you can write"
        )
    return passed("hub cache", str(place))


def check_tracker(environment: Environment = os.environ, login: Callable[[], bool] | None = None) -> Finding:
    """Whether `machine.trackers: [wandb]` can log in."""
    mode = environment.get("WANDB_MODE", "")
    if mode in {"offline", "disabled", "dryrun"}:
        return passed("wandb", f"WANDB_MODE is {mode}")
    if mode not in {"", *WANDB_ONLINE}:
        return warned(
            "wandb",
            f"WANDB_MODE is {mode[:40]!r}, which wandb refuses",
            "set it to offline, online or disabled, or unset it",
        )
    if environment.get("WANDB_API_KEY") or (login or _has_login)():
        return passed("wandb", "an API key is stored")
    return skipped("wandb", "no API key; only a recipe that tracks with wandb needs `wandb login`")


def _has_login() -> bool:
    """Whether `wandb login` has stored a key."""
    try:
        return any("wandb" in host for host in netrc.netrc().hosts)
    except (OSError, netrc.NetrcParseError):
        return False
