"""The base model of an export, for its model card: its name on the hub, and its licence."""

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from finetune.core.files import read_bytes, read_json
from finetune.core.model_limits import ADAPTATION

FRONT_MATTER_BYTES = 1_000_000  # of a model card that is read
SNAPSHOTS = "snapshots"  # the folder of the hub's cache with a folder for each commit
FAMILY, FAMILY_LICENSE = "ibm-granite/granite-", "apache-2.0"  # as their model cards state


@dataclass(frozen=True)
class BaseFacts:
    """A base model.

    Attributes:
        name: What a reader sees: the hub name, or the last part of the path of a folder.
        hub: The hub name; "" if it is not known.
        revision: Commit on the hub; "" if it is not known.
        license: Identifier of the licence, several with commas; "" if it is not stated.
        first_stage: Name of the folder if the base is itself an export, which was trained from `hub`.
        license_name: Name of a licence that the hub does not know (`license: other`).
        license_link: Its text.
    """

    name: str
    hub: str = ""
    revision: str = ""
    license: str = ""
    first_stage: str = ""
    license_name: str = ""
    license_link: str = ""


def base_facts(base: str, revision: str | None, folder: Path) -> BaseFacts:
    """The facts of a base model.

    Args:
        base: `model.base` of the recipe.
        revision: `model.revision` of the recipe.
        folder: The folder of its files. In the hub's cache it has the commit as its name; an export of it has not.
    """
    card = front_matter(folder / "README.md")
    values = card.get("license") or ""
    stated = ", ".join(map(str, values)) if isinstance(values, list) else str(values)
    details = {key: str(card.get(key) or "") for key in ("license_name", "license_link")}
    if not Path(base).is_dir() and _is_hub_name(base):
        known = FAMILY_LICENSE if base.startswith(FAMILY) else ""
        commit = folder.name if folder.parent.name == SNAPSHOTS else ""
        details["license_link"] = _absolute_link(details["license_link"], base, revision or commit)
        return BaseFacts(base, base, revision or commit, stated or known, **details)
    name = Path(base).resolve().name
    with suppress(OSError, ValueError, KeyError, TypeError):  # not an export
        earlier = read_json(folder / ADAPTATION)
        hub = str(earlier["base"])
        if _is_hub_name(hub) and not Path(hub).exists():
            known = FAMILY_LICENSE if hub.startswith(FAMILY) else ""
            return BaseFacts(hub, hub, str(earlier.get("revision") or ""), stated or known, name, **details)
    return BaseFacts(name, license=stated, **details)


def _absolute_link(link: str, base: str, revision: str) -> str:
    """The address of a file of a repository of the hub, which a card can name relative to itself."""
    if not link or "://" in link:
        return link
    return f"https://huggingface.co/{base}/blob/{revision or 'main'}/{link.removeprefix('./')}"


def _is_hub_name(name: str) -> bool:
    return name.count("/") == 1 and not name.startswith(("/", ".", "~"))


def front_matter(card: Path) -> dict[str, Any]:
    """The YAML between the first lines `---` of a model card; empty if there is none, or if it is damaged."""
    try:
        text = read_bytes(card, FRONT_MATTER_BYTES).decode("utf-8-sig").replace("\r\n", "\n")
        start, _, rest = text.partition("---\n")
        header, end, _ = rest.partition("\n---")
        content = yaml.safe_load(header) if not start.strip() and end else {}
    except (OSError, ValueError, yaml.YAMLError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}
