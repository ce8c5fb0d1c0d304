"""Quantiles of Student's t distribution."""

import math
from functools import cache

import numpy as np
import numpy.typing as npt

_NORMAL_FROM = 2000  # with this many degrees of freedom, the normal distribution is equal to four digits
_POINTS = 20_001


@cache
def _table(df: int) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Angles u and the cumulative distribution at t = sqrt(df) tan(u), whose density in u is that of cos(u)^(df-1)."""
    angles = np.linspace(-math.pi / 2, math.pi / 2, _POINTS)
    density = np.cos(angles) ** (df - 1)
    area = np.concatenate([[0.0], np.cumsum(density[1:] + density[:-1])])
    return angles, area / area[-1]


def t_quantile(probability: float, df: int) -> float:
    """The value of t with cumulative `probability` (between 0 and 1), for `df` degrees of freedom (1 or more)."""
    df = min(df, _NORMAL_FROM)
    angles, cumulative = _table(df)
    return math.sqrt(df) * math.tan(float(np.interp(probability, cumulative, angles)))
