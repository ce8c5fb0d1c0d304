"""A sequence that makes its items when they are asked for."""

from abc import abstractmethod
from collections.abc import Sequence
from typing import TypeVar, overload

Item = TypeVar("Item")


class LazySequence(Sequence[Item]):
    """A sequence from its length and the function `item`; slices and negative positions work as those of a list."""

    @abstractmethod
    def item(self, index: int) -> Item:
        """The item at a position from 0 to the length minus 1."""

    @overload
    def __getitem__(self, index: int) -> Item: ...
    @overload
    def __getitem__(self, index: slice) -> list[Item]: ...
    def __getitem__(self, index: int | slice) -> Item | list[Item]:
        chosen = range(len(self))[index]  # raises IndexError
        return self.item(chosen) if isinstance(chosen, int) else [self.item(position) for position in chosen]
