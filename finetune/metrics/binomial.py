"""The exact 95 % interval of a proportion."""

import math

_TAIL = 0.025


def clopper_pearson(hits: int, total: int) -> tuple[float, float]:
    """The 95 % interval of a proportion of which `hits` of `total` are counted (Clopper and Pearson, Biometrika 1934).

    For 0 of n the upper end is 1 - 0.025^(1/n), the two-sided form of the rule of three.
    """
    return 1 - _upper(total - hits, total), _upper(hits, total)


def _upper(hits: int, total: int) -> float:
    """The proportion for which `hits` or fewer of `total` have a probability of 2.5 %."""
    if hits >= total:
        return 1.0
    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if _at_most(hits, total, middle) > _TAIL else (low, middle)
    return high


def _at_most(hits: int, total: int, share: float) -> float:
    """Binomial probability of `hits` or fewer."""
    log_share, log_rest = math.log(share), math.log1p(-share)
    constant = math.lgamma(total + 1)
    return math.fsum(
        math.exp(constant - math.lgamma(k + 1) - math.lgamma(total - k + 1) + k * log_share + (total - k) * log_rest)
        for k in range(hits + 1)
    )
