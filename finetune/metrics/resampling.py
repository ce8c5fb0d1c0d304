"""Totals of random selections of blocks: with replacement for the bootstrap, and of subsets for the sign-flip test."""

import numpy as np
import numpy.typing as npt

INDICES_PER_CHUNK = 1 << 20  # block indices in memory at the same time, about 16 MB with the values they select
EXACT_BLOCKS = 14  # up to this number of blocks all subsets are enumerated

FloatArray = npt.NDArray[np.float64]


def resample(sums: FloatArray, replicas: int, seed: int, chunk: int = INDICES_PER_CHUNK) -> FloatArray:
    """Samples K of K blocks with replacement, `replicas` times: sums (M, K) to totals (M, replicas).

    Blocks with equal sums are interchangeable. With few kinds of blocks, the number of blocks of each kind is sampled
    instead. This has the same distribution and is much faster for many utterances.

    Args:
        sums: M sums of each of K blocks.
        replicas: number of resampled corpora.
        seed: seed of the random generator.
        chunk: block indices in memory at the same time; the totals do not depend on it.
    """
    rng, blocks = np.random.default_rng(seed), sums.shape[1]
    columns, counts = _kinds(sums)
    few = len(counts) < blocks / 8  # sampling a kind takes longer than sampling a block
    rows = max(1, chunk // (len(counts) if few else blocks))
    totals = np.empty((len(sums), replicas))
    for start in range(0, replicas, rows):
        size = min(rows, replicas - start)
        if few:
            totals[:, start : start + size] = columns @ rng.multinomial(blocks, counts / blocks, size).T
        else:
            sampled_blocks = rng.integers(blocks, size=(size, blocks))
            for total, column in zip(totals, sums, strict=True):
                total[start : start + size] = column[sampled_blocks].sum(axis=1)
    return totals


def subset_totals(sums: FloatArray, draws: int, seed: int, chunk: int = INDICES_PER_CHUNK) -> FloatArray:
    """Totals of subsets of K blocks: sums (M, K) to totals (M, N).

    Up to `EXACT_BLOCKS` blocks these are all 2^K - 1 subsets that are not empty, else `draws` random subsets, which
    contain each block with probability 1/2.

    Args:
        sums: M sums of each of K blocks.
        draws: number of random subsets.
        seed: seed of the random generator.
        chunk: block indices in memory at the same time; the totals do not depend on it.
    """
    rng, blocks = np.random.default_rng(seed), sums.shape[1]
    exact = blocks <= EXACT_BLOCKS
    columns, counts = _kinds(sums)
    few = not exact and len(counts) < blocks / 8
    count, rows = 2**blocks - 1 if exact else draws, max(1, chunk // (len(counts) if few else blocks))
    totals = np.empty((len(sums), count))
    for start in range(0, count, rows):
        size = min(rows, count - start)
        if few:
            totals[:, start : start + size] = columns @ rng.binomial(counts, 0.5, (size, len(counts))).T
        elif exact:
            chosen = (np.arange(start + 1, start + size + 1)[:, None] >> np.arange(blocks)) & 1
            totals[:, start : start + size] = (chosen @ sums.T).T
        else:
            width = 4 * -(-blocks // 32)  # bytes of one subset, whole words, so the bits do not depend on the chunk
            packed = np.frombuffer(rng.bytes(size * width), np.uint8).reshape(size, width)
            bits = np.unpackbits(packed, axis=1, count=blocks)
            totals[:, start : start + size] = (bits.astype(float) @ sums.T).T
    return totals


def _kinds(sums: FloatArray) -> tuple[FloatArray, npt.NDArray[np.int64]]:
    """The distinct blocks and their counts, in order of first occurrence: exchanged systems have the same samples."""
    _, first, counts = np.unique(sums, axis=1, return_index=True, return_counts=True)
    order = np.argsort(first)
    return sums[:, first[order]], counts[order]
