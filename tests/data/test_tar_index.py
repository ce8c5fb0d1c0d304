"""The members of tar archives, found by their headers."""

import io
import os
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path

import fsspec
import pytest

from finetune.core.errors import DataError
from finetune.data.byte_range import parse_byte_range
from finetune.data.tar_index import LARGE, TarIndex, index_beside, read_tar_index, write_tar_index

FILES = {"a.flac": b"first", "sub/b.txt": b"", "sub/" + "long" * 60 + ".flac": b"x" * 5000, "ä ?:b.wav": b"last"}


def make_tar(path: Path, files: dict[str, bytes] = FILES, form: int = tarfile.GNU_FORMAT) -> Path:
    with tarfile.open(path, "w", format=form) as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def contents(path: Path) -> dict[str, bytes]:
    """What the ranges of the index hold, after the string that names them."""
    data, found = path.read_bytes(), {}
    for member in read_tar_index(path):
        assert parse_byte_range(str(member)) == member and member.file == str(path)
        found[member.name] = data[member.start : member.start + member.length]
    return found


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_every_file_of_an_archive_is_found(tmp_path: Path, form: int) -> None:
    files = {f"{'directory' * 12}/{name[:99]}" if form == tarfile.USTAR_FORMAT else name: FILES[name] for name in FILES}
    assert contents(make_tar(tmp_path / "a.tar", files, form)) == files


def test_archives_of_the_command_tar(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.flac").write_bytes(b"first")
    os.link(tmp_path / "in" / "a.flac", tmp_path / "in" / "b.flac")
    os.symlink("a.flac", tmp_path / "in" / "c.flac")
    subprocess.run(["tar", "-C", tmp_path / "in", "-cf", tmp_path / "a.tar", "."], check=True)
    assert contents(tmp_path / "a.tar") == {"a.flac": b"first", "b.flac": b"first"}  # a hard link


def test_a_member_of_more_than_8_gib_has_a_binary_size(tmp_path: Path) -> None:
    member = tarfile.TarInfo("big.wav")
    member.size = 9 << 30
    path = tmp_path / "a.tar"
    with open(path, "wb") as file:
        file.write(member.tobuf(tarfile.GNU_FORMAT))
        file.truncate(512 + member.size)
        file.seek(0, 2)
        file.write(make_tar(tmp_path / "b.tar", {"next.txt": b"after"}).read_bytes())
    big, last = read_tar_index(path)
    assert (big.start, big.length, last.name, last.start) == (512, 9 << 30, "next.txt", (9 << 30) + 1024)


def test_joined_archives_are_read_to_the_end(tmp_path: Path) -> None:
    first, second = make_tar(tmp_path / "1.tar", {"a": b"1"}), make_tar(tmp_path / "2.tar", {"b": b"2"})
    joined = tmp_path / "joined.tar"
    joined.write_bytes(first.read_bytes() + second.read_bytes())
    assert contents(joined) == {"a": b"1", "b": b"2"}


def truncated(data: bytes) -> bytes:
    return data[:1700]


def cut_in_a_header(data: bytes) -> bytes:
    return data[:1200]


def damaged(data: bytes) -> bytes:
    return data[:1024] + b"?" * 512 + data[1536:]


def sparse(data: bytes) -> bytes:
    member = tarfile.TarInfo("a.wav")
    member.type = tarfile.GNUTYPE_SPARSE
    return member.tobuf(tarfile.GNU_FORMAT) + bytes(1024)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (truncated, "truncated: b ends at byte 2036, but the archive has 1700"),
        (cut_in_a_header, "truncated"),
        (damaged, "damaged or truncated at byte 1024"),
        (lambda data: data[:1024] + b"c" + data[1025:], "damaged or truncated at byte 1024"),  # against the checksum
        (sparse, "a.wav is a sparse file"),
        (lambda data: b"\x1f\x8b" + data, "compressed with gzip"),
        (lambda data: b"\x28\xb5\x2f\xfd" + data, "compressed with zstd"),
        (lambda data: b"PK\3\4" + data, "a ZIP archive"),
        (lambda data: b"fLaC" * 300, "not a tar archive"),
        (lambda data: b"", "the file is empty"),
        (lambda data: b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
    ],
)
def test_what_cannot_be_read_in_place_is_refused(
    tmp_path: Path, change: Callable[[bytes], bytes], message: str
) -> None:
    path = make_tar(tmp_path / "a.tar", {"a": b"1", "b": b"2" * 500})
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(DataError, match=message) as error:
        read_tar_index(path)
    assert str(error.value).startswith(f"{path}: ")


def test_a_missing_archive(tmp_path: Path) -> None:
    for path in (str(tmp_path / "none.tar"), "memory://none.tar"):
        with pytest.raises(DataError, match="none.tar: no such file"):
            read_tar_index(path)


def test_the_index_is_kept_and_made_again_for_another_archive(tmp_path: Path) -> None:
    path, cache = make_tar(tmp_path / "a.tar"), tmp_path / "media"
    first = read_tar_index(path, cache)
    (kept,) = cache.iterdir()
    kept.chmod(0o400)
    status, content = kept.stat(), kept.read_bytes()
    assert [*read_tar_index(path, cache)] == [*first] and first[1:3] == [first[1], first[2]]
    assert kept.stat() == status
    kept.chmod(0o600)
    for damage in (content[:-1], content[:20], b"other"):
        kept.write_bytes(damage)
        assert [*read_tar_index(path, cache)] == [*first]
        assert kept.read_bytes() == content
    make_tar(path, {"other.flac": b"1"})
    assert [member.name for member in read_tar_index(path, cache)] == ["other.flac"]


def test_large_and_remote_archives_are_kept_in_the_cache_of_the_user(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FINETUNE_CACHE", str(tmp_path / "cache"))
    small, large = make_tar(tmp_path / "a.tar"), make_tar(tmp_path / "b.tar", {"a.wav": bytes(LARGE), "b": b"1"})
    fsspec.filesystem("memory").pipe("/test_tar_index/c.tar", small.read_bytes())
    for path in (str(small), str(large), "memory://test_tar_index/c.tar"):
        assert [*read_tar_index(path)] == [*read_tar_index(path)]
    kept = sorted((tmp_path / "cache" / "tar").iterdir())
    assert [file.name[:5] for file in kept] == ["b.tar", "c.tar"]
    assert len(TarIndex.from_bytes(kept[0].read_bytes(), "x", kept[0].read_bytes()[10:42]) or ()) == 2
    (tmp_path / "full").write_text("")
    monkeypatch.setenv("FINETUNE_CACHE", str(tmp_path / "full" / "x"))
    assert len(read_tar_index(large)) == 2


def test_an_index_beside_the_archive_is_used(tmp_path: Path) -> None:
    path = make_tar(tmp_path / "a.tar")
    status = path.stat()
    assert write_tar_index(path) == index_beside(str(path))
    path.write_bytes(bytes(status.st_size))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert [member.name for member in read_tar_index(path)] == [*FILES]


def test_a_remote_archive(tmp_path: Path) -> None:
    local = make_tar(tmp_path / "a.tar", {"large.wav": b"0" * (3 << 20), **FILES})
    fsspec.filesystem("memory").pipe("/test_tar_index/a.tar", local.read_bytes())
    url = "memory://test_tar_index/a.tar"
    remote = read_tar_index(url, tmp_path / "media")
    assert [(m.name, m.start, m.length) for m in remote] == [(m.name, m.start, m.length) for m in read_tar_index(local)]
    assert remote[0].file == url and [*read_tar_index(url, tmp_path / "media")] == [*remote]
