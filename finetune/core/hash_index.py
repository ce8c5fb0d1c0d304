"""Numbers by text for millions of texts: 24 bytes for each text, in sorted NumPy arrays.

Texts are compared by 128 bits of BLAKE2b, so two different texts are never taken for one.
"""

import hashlib
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

KEY_BYTES = 16
_MAX_RECENT = 1 << 16  # texts in a dict before they become a sorted array


def text_key(text: str) -> bytes:
    """The hash of a text."""
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=KEY_BYTES).digest()


class HashIndex:
    """A dict from texts to numbers, without the texts. A number is never changed or removed."""

    def __init__(self, max_recent: int = _MAX_RECENT) -> None:
        self._max_recent = max_recent
        self._recent: dict[bytes, int] = {}
        self._runs: list[tuple[NDArray[np.uint64], NDArray[np.int64]]] = []  # keys (n, 2), numbers (n,)
        self._fetched: dict[bytes, int | None] = {}

    def __len__(self) -> int:
        return len(self._recent) + sum(len(numbers) for _, numbers in self._runs)

    def __contains__(self, text: object) -> bool:
        return self.get(str(text)) is not None

    def get(self, text: str) -> int | None:
        """The number of a text; None if it has none."""
        return self.get_key(text_key(text))

    def get_key(self, key: bytes) -> int | None:
        """The number of the text with a hash."""
        if key in self._recent or not self._runs:
            return self._recent.get(key)
        if key not in self._fetched:
            self._fetched |= self._search([key])
        return self._fetched[key]

    def set_new(self, text: str, number: int) -> None:
        """Adds a text that is not in the index."""
        self.set_new_key(text_key(text), number)

    def set_new_key(self, key: bytes, number: int) -> None:
        """Adds the hash of a text that is not in the index."""
        self._recent[key] = number

    def prefetch(self, keys: Iterable[bytes]) -> None:
        """Searches many hashes at once, which makes the next calls of `get` faster. Forgets those of the last call."""
        if len(self._recent) >= self._max_recent:
            self._compact()
        self._fetched = self._search(list(keys)) if self._runs else {}

    def _search(self, keys: list[bytes]) -> dict[bytes, int | None]:
        number_of: dict[bytes, int | None] = dict.fromkeys(keys)
        halves = np.frombuffer(b"".join(keys), np.uint64).reshape(-1, 2)
        for run_keys, numbers in self._runs:
            firsts = np.searchsorted(run_keys[:, 0], halves[:, 0])
            for index in np.flatnonzero(firsts < len(numbers)):
                place = int(firsts[index])
                while place < len(numbers) and run_keys[place, 0] == halves[index, 0]:  # equal halves are rare
                    if run_keys[place, 1] == halves[index, 1]:
                        number_of[keys[index]] = int(numbers[place])
                    place += 1
        return number_of

    def _compact(self) -> None:
        """Turns the dict into a sorted array, merged with arrays that are not much larger."""
        keys = np.frombuffer(b"".join(self._recent), np.uint64).reshape(-1, 2)
        numbers = np.fromiter(self._recent.values(), np.int64, len(self._recent))
        self._recent = {}
        while self._runs and len(self._runs[-1][1]) <= 2 * len(numbers):
            other_keys, other_numbers = self._runs.pop()
            keys, numbers = np.concatenate([other_keys, keys]), np.concatenate([other_numbers, numbers])
        order = np.argsort(keys[:, 0], kind="stable")
        self._runs.append((np.asfortranarray(keys[order]), numbers[order]))
