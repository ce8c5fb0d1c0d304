"""A file-like object over a part of a local or remote file that is read on demand, in blocks."""

from collections.abc import Callable


class RangeFile:
    """A read-only file of a known size. A read of less than a block reads a block, which the next reads use.

    A block that follows the previous one can be larger, so that a file that is read in order needs few reads.

    Args:
        read: returns the bytes from a start to a stop; fewer only at the end of what can be read.
        size: bytes.
        block: bytes that are read at least; can be changed at any time.
        close: is called by `close`.
        largest: limit of blocks that double in size; 0 if they do not.
    """

    def __init__(
        self,
        read: Callable[[int, int], bytes],
        size: int,
        block: int,
        close: Callable[[], None] = lambda: None,
        largest: int = 0,
    ) -> None:
        self.size, self.block, self._largest = size, block, largest
        self._read, self._close = read, close
        self._position, self._start, self._buffer = 0, 0, b""

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = 0) -> int:
        self._position = max(0, offset + {0: 0, 1: self._position, 2: self.size}[whence])
        return self._position

    def seekable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        stop = self.size if size < 0 else min(self.size, self._position + size)
        pieces = list[bytes]()
        while self._position < stop:
            at = self._position - self._start
            if not 0 <= at < len(self._buffer):
                follows = self._buffer and at == len(self._buffer)
                block = max(self.block, min(2 * at, self._largest) if follows else 0)
                end = min(self.size, max(stop, self._position + block))
                self._start, self._buffer, at = self._position, self._read(self._position, end), 0
                if not self._buffer:
                    break
            pieces.append(self._buffer[at : at + stop - self._position])
            self._position += len(pieces[-1])
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def close(self) -> None:
        self._close()
