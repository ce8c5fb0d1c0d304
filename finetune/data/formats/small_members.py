"""Reads small members of a tar archive, such as texts and JSON, from a local or remote file."""

import os

from finetune.data.byte_range import ByteRange, is_url
from finetune.data.range_file import RangeFile
from finetune.data.remote import read_range
from finetune.data.tar_index import TarIndex

BLOCK = 1 << 12  # bytes of a read of a local archive
REMOTE_BLOCK = 4 << 20  # bytes of a request; it has the small members of many short clips


class SmallMembers:
    """The content of members of one archive."""

    def __init__(self, index: TarIndex) -> None:
        path = index.path
        size = int((index.starts + index.lengths).max()) if len(index) else 0
        if is_url(path):
            self._file = RangeFile(lambda start, stop: read_range(path, start, stop), size, REMOTE_BLOCK)
        else:
            file = open(path, "rb", buffering=0)  # noqa: SIM115 - closed by the RangeFile

            def read(start: int, stop: int) -> bytes:
                return os.pread(file.fileno(), stop - start, start)

            self._file = RangeFile(read, size, BLOCK, file.close)

    def read(self, member: ByteRange) -> bytes:
        """The bytes of a member. Raises DataError if a remote archive cannot be read."""
        self._file.seek(member.start)
        return self._file.read(member.length)

    def close(self) -> None:
        self._file.close()
