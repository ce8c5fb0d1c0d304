"""Student's t distribution, which the standard library lacks."""

import math
from functools import cache

import numpy as np
import numpy.typing as npt

_NORMAL_FROM = 2000  # degrees of freedom beyond which the normal distribution is the same to four digits
_POINTS = 20_001


@cache
def _table(df: int) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Angles u and the distribution at t = sqrt(df) tan u, whose density in u is proportional to cos(u)^(df-1)."""
    angles = np.linspace(-math.pi / 2, math.pi / 2, _POINTS)
    density = np.cos(angles) ** (df - 1)
    area = np.concatenate([[0.0], np.cumsum(density[1:] + density[:-1])])
    return angles, area / area[-1]


def t_cdf(t: float, df: int) -> float:
    """The share of Student's t distribution with `df` degrees of freedom (1 or more) that lies below `t`."""
    df = min(df, _NORMAL_FROM)
    angles, below = _table(df)
    return float(np.interp(math.atan(t / math.sqrt(df)), angles, below))


def t_quantile(share: float, df: int) -> float:
    """The t below which `share` (between 0 and 1) of the distribution lies."""
    df = min(df, _NORMAL_FROM)
    angles, below = _table(df)
    return math.sqrt(df) * math.tan(float(np.interp(share, below, angles)))
