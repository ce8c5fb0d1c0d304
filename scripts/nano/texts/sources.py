"""The packages of the texts, with their licences, and how to fetch them: Debian and PyPI, into a cache folder."""

import hashlib
import subprocess
import sys
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

WESNOTH = (
    "did",
    "dm",
    "dw",
    "ei",
    "httt",
    "l",
    "low",
    "nr",
    "sof",
    "sota",
    "sotbe",
    "thot",
    "trow",
    "tsg",
    "ttb",
    "utbs",
)
WESNOTH_VERSIONS = ("1.16", "1.18")  # Debian 12, Debian 13
DEBIAN = {
    "fortunes": "BSD-3-Clause and public quotations",
    "fortunes-min": "BSD-3-Clause and public quotations",
    "fortunes-es": "GPL-2.0-or-later",
    "fortunes-de": "GPL-2.0-or-later",
    "fortunes-br": "GPL-2.0-or-later",
    "fortunes-it": "public domain",
    "wordnet-base": "WordNet 3.0 licence (Princeton University)",
    "trans-de-en": "GPL-2.0-or-later (Frank Richter, TU Chemnitz)",
    **{
        f"asterisk-core-sounds-{lang}": "CC-BY-SA-3.0; to leave its sentences out"
        for lang in ("en", "es", "fr", "it", "ru")
    },
}


@dataclass(frozen=True)
class Wheel:
    """A pinned wheel of PyPI that works with every Python."""

    name: str
    version: str
    sha256: str
    licence: str


PYPI = (
    Wheel(
        "wordfreq",
        "3.1.1",
        "4b1c6ecffc6198be3396d5cf871c4423ca71c907c231348d352dd54d62b97473",
        "Apache-2.0; word lists CC-BY-SA-4.0",
    ),
    Wheel(
        "chatterbot-corpus", "1.3.3", "86de5300afb9a80826386339d3bec79c0a72eb0358abb8327e2ecef5ae0ce154", "BSD-3-Clause"
    ),
    Wheel(
        "home-assistant-intents",
        "2026.10.27",
        "256eb1e4fc6e6f4943d0ba4e089c9639d74d0e9d62ccddeb7148bc168de55e40",
        "Apache-2.0",
    ),
    Wheel("Faker", "40.54.0", "2dd88ee8cb63a9149e19ef48bdd73879bc3854d8ba2d6c1535e902a762e603f7", "MIT"),
    Wheel(
        "Janome",
        "0.5.0",
        "d098670394a77881ce2f6b7d696c0ea5ff74c0c8cf74a8a882159ec82c0e6dc7",
        "Apache-2.0; dictionary IPADIC",
    ),
)


class SourceError(Exception):
    """A package cannot be fetched or has an unexpected content."""


class Sources:
    """The packages in a cache folder.

    Args:
        cache: folder for downloads (`packages/`) and unpacked Debian packages (`unpacked/`).
    """

    def __init__(self, cache: Path) -> None:
        self.packages, self.unpacked = cache / "packages", cache / "unpacked"

    def fetch(self) -> None:
        """Downloads and unpacks what is missing.

        Raises:
            SourceError: a package cannot be downloaded, or a wheel differs from its pin.
        """
        self.packages.mkdir(parents=True, exist_ok=True)
        version = self._wesnoth_version()
        names = [*DEBIAN, *(f"wesnoth-{version}-{campaign}" for campaign in WESNOTH)]
        missing = [name for name in names if not list(self.packages.glob(f"{name}_*.deb"))]
        if missing:
            self._run(
                ["apt-get", "download", *missing], "apt-get update first, or copy the .deb files of another machine"
            )
        for name in names:
            if not (self.unpacked / name).exists():
                deb = sorted(self.packages.glob(f"{name}_*.deb"))[-1]
                partial = self.unpacked / f"{name}.part"
                self._run(["dpkg-deb", "-x", str(deb), str(partial)], f"delete {deb}")
                partial.rename(self.unpacked / name)
        for wheel in PYPI:
            self._fetch_wheel(wheel)

    def path(self, package: str, pattern: str) -> list[Path]:
        """The files of a Debian package (`wesnoth-*` for all versions) that match a glob pattern, sorted."""
        return sorted(path for folder in sorted(self.unpacked.glob(package)) for path in folder.glob(pattern))

    def wheel(self, name: str) -> Path:
        """The file of a PyPI package."""
        pin = next(wheel for wheel in PYPI if wheel.name == name)
        plain = name.replace("-", "_").lower()
        found = [
            path for path in self.packages.glob("*.whl") if path.name.lower().startswith(f"{plain}-{pin.version}-")
        ]
        if not found:
            raise SourceError(f"{self.packages}: no wheel of {name} {pin.version}")
        return found[0]

    def versions(self) -> dict[str, str]:
        """Name -> sha256 of each downloaded package, to compare two builds."""
        files = sorted(path for path in self.packages.iterdir() if path.suffix in (".deb", ".whl"))
        return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}

    def janome(self) -> Path:
        """Folder with the unpacked Janome: its dictionary must lie in files."""
        folder = self.unpacked / "janome"
        if not folder.exists():
            partial = self.unpacked / "janome.part"
            with zipfile.ZipFile(self.wheel("Janome")) as archive:
                archive.extractall(partial)
            partial.rename(folder)
        return folder

    def _wesnoth_version(self) -> str:
        for version in WESNOTH_VERSIONS:
            if list(self.packages.glob(f"wesnoth-{version}-*.deb")):
                return version
            listing = subprocess.run(["apt-cache", "show", f"wesnoth-{version}-httt"], capture_output=True, check=False)
            if listing.returncode == 0:
                return version
        raise SourceError(f"Debian has no package wesnoth-VERSION-httt for VERSION in {WESNOTH_VERSIONS}")

    def _fetch_wheel(self, wheel: Wheel) -> None:
        try:
            path = self.wheel(wheel.name)
        except SourceError:
            pin = f"{wheel.name}=={wheel.version}"
            command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--only-binary", ":all:", pin]
            self._run(command, f"copy the wheel of {pin}")
            path = self.wheel(wheel.name)
        found = hashlib.sha256(path.read_bytes()).hexdigest()
        if found != wheel.sha256:
            raise SourceError(f"{path}: sha256 is {found}, but {wheel.sha256} is pinned. Delete the file and rerun")

    def _run(self, command: Sequence[str], advice: str) -> None:
        self.unpacked.mkdir(parents=True, exist_ok=True)
        try:
            done = subprocess.run(command, cwd=self.packages, capture_output=True, text=True, check=False)
        except OSError as error:
            raise SourceError(f"{command[0]}: {error}. Try: {advice} (folder {self.packages})") from None
        if done.returncode:
            raise SourceError(f"{' '.join(command[:3])} failed: {done.stderr.strip()[-300:]}. Try: {advice}")
