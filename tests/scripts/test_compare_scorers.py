"""Scores equal those of kaldialign and, where it is installed, sclite."""

import pytest

from compare_scorers import PRESETS, agreement, mapsswe_pair, random_pairs, tool

PAIRS = random_pairs(1, 60)
needs_sctk = pytest.mark.skipif(not tool("sclite"), reason="sclite is not installed (Debian: apt install sctk)")


def test_the_pairs_have_all_kinds() -> None:
    refs, hyps = zip(*PAIRS, strict=True)
    assert "" in refs and "" in hyps and any(ref == hyp != "" for ref, hyp in PAIRS)
    assert {"2.5", "don't", "twenty-four", "東京", "में"} <= set(" ".join(refs).split())


@pytest.mark.parametrize("preset", PRESETS)
def test_errors_and_words_are_those_of_kaldialign(preset: str) -> None:
    row = agreement(preset, PAIRS)
    assert row.kaldialign == 0 and row.total.errors > 100


@needs_sctk
@pytest.mark.parametrize("preset", PRESETS)
def test_counts_are_those_of_sclite(preset: str) -> None:
    row = agreement(preset, PAIRS)
    assert row.sclite == 0 and row.costs is not None and row.costs <= 3


@needs_sctk
@pytest.mark.parametrize("rates", [(0.2, 0.2), (0.2, 0.16)])
def test_p_of_mapsswe_is_that_of_sc_stats(rates: tuple[float, float]) -> None:
    own, other = mapsswe_pair(5, 200, rates)
    assert abs(own - other) <= 0.01
