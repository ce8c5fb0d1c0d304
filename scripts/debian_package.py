"""Downloads a Debian package with apt-get, and reads its files. Requires only Python, without packages."""

import io
import os
import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path


class FetchError(Exception):
    """A package cannot be used; the message says why and what to do."""


def download(package: str, folder: Path, by_hand: str) -> Path:
    """Downloads a package to `folder`; updates the package lists once if the first try fails.

    Args:
        package: its name.
        folder: where the .deb goes.
        by_hand: what a message advises if apt-get cannot do it.

    Raises:
        FetchError: apt-get is missing or failed.
    """
    if shutil.which("apt-get") is None:
        raise FetchError(f"apt-get is not installed. {by_hand}")
    messages = ""
    for command in (["download", package], ["update"], ["download", package]):
        done = subprocess.run(["apt-get", *command], cwd=folder, capture_output=True, text=True, check=False)
        messages += done.stderr
        if packages := sorted(folder.glob(f"{package}_*.deb")):
            return packages[0]
    raise FetchError(
        f"apt-get could not download {package}:\n{messages.strip()}\n"
        f"If updating needs root, run `sudo apt-get update` and try again. Or: {by_hand}"
    )


def package_files(deb: Path, by_hand: str) -> Iterator[tuple[str, bytes]]:
    """Path and content of each regular file. A .deb is an ar archive with a data.tar.*; no dpkg is needed.

    Raises:
        FetchError: the file is no Debian package, or is damaged.
    """
    with deb.open("rb") as file:
        if file.read(8) != b"!<arch>\n":
            raise FetchError(f"{deb} is not a Debian package. {by_hand}")
        while len(header := file.read(60)) == 60:
            size = int(header[48:58])
            if header.startswith(b"data.tar"):
                break
            file.seek(size + size % 2, os.SEEK_CUR)
        else:
            raise FetchError(f"{deb} has no data.tar: the file is damaged. {by_hand}")
        content = io.BytesIO(file.read(size))
    if len(content.getvalue()) < size:
        raise FetchError(f"{deb} is truncated: the download is incomplete. {by_hand}")
    with tarfile.open(fileobj=content) as tar:
        for member in tar:
            source = tar.extractfile(member) if member.isfile() else None
            if source is not None:
                yield member.name.removeprefix("./"), source.read()
