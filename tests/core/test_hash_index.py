"""The index of texts gives what a dict gives, also when it has several sorted arrays."""

import random
import tracemalloc

from finetune.core.hash_index import HashIndex, text_key


def test_it_is_a_dict_of_texts() -> None:
    rng, index, expected = random.Random(1), HashIndex(max_recent=16), dict[str, int]()
    for number in range(200):
        names = [f"t{rng.randrange(900)}" for _ in range(20)] + ["", "\ud800"]
        index.prefetch(map(text_key, names))
        for name in names:
            assert index.get(name) == expected.get(name), name
            assert (name in index) == (name in expected)
            if name not in expected:
                expected[name] = number
                index.set_new(name, number)
    assert len(index) == len(expected) > 500
    assert all(index.get(name) == number for name, number in expected.items()), "without prefetch"


def test_texts_with_one_half_of_a_hash_in_common_are_different() -> None:
    index, half = HashIndex(max_recent=1), text_key("a")[:8]
    keys = [half + bytes([number] * 8) for number in range(5)]
    for number, key in enumerate(keys[:4]):
        index.prefetch(keys)
        index.set_new_key(key, number)
    index.prefetch(keys)
    assert [index.get_key(key) for key in keys] == [0, 1, 2, 3, None]


def test_it_needs_24_bytes_for_each_text() -> None:
    index = HashIndex(max_recent=2000)
    tracemalloc.start()
    try:
        for start in range(0, 60_000, 500):
            index.prefetch([])
            for number in range(start, start + 500):
                index.set_new(f"text {number}", number)
        index.prefetch([])
        used = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert len(index) == 60_000 and used < 60_000 * 24 + 2000 * 300
