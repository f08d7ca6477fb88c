"""Load entropy and hottest over mean if no expert is preferred: T tokens choose K of N experts independently and
uniformly.

In a finite sample some expert is ahead by chance, so hottest over mean is above 1 and the entropy below log N; the
fewer tokens, the more so.

* *entropy*: exact. An expert's load n is binomial (T, K/N), and the expectation of the entropy −Σ (n/TK) log (n/TK) is
  N times that of one term, however the loads depend on each other.
* *hottest over mean*: the mean of the maximum of loads that sum up to TK. Up to ``SAMPLED_CHOICES`` choices it is
  simulated (at most ``DRAWN_CHOICES`` choices in all, seed ``SEED``) at two numbers of tokens per octave; between them,
  the excess over 1 times √T is interpolated. Above that, the loads are nearly normal with variance T p (1 − p), p =
  K/N, and covariance −T p (1 − p) / (N − 1). Up to a common term that does not change the mean of the maximum, such
  loads are independent normals of variance T p (1 − p) N / (N − 1). Cornish and Fisher's first term, z + γ (z² − 1) /
  6, corrects for the binomial's skewness γ (Johnson, Kotz and Balakrishnan, Continuous Univariate Distributions 1,
  §12.5). At ``SAMPLED_CHOICES`` the two methods differ by 1 to 3 % of the excess.
"""

import math
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from catalog.compiled import njit

SAMPLED_CHOICES = 1 << 14
DRAWN_CHOICES = 1 << 21
SEED = 0
_POINTS_AN_OCTAVE = 2
_MOST_DRAWS = 4096


@lru_cache(maxsize=4096)
def uniform_load_entropy(tokens: int, experts: int, top_k: int) -> float | None:
    """Expected load entropy divided by log N; ``None`` without tokens or with a single expert, like the figure itself.

    Args:
        tokens: recorded rows of the layer, T.
        experts, top_k: N and K.
    """
    if not tokens or experts == 1:
        return None
    if top_k == experts:
        return 1.0
    p = top_k / experts
    mode = min(tokens, int((tokens + 1) * p))
    reach = int(40 + 12 * math.sqrt(tokens * p * (1 - p)))  # beyond it there is less than 1e-30 of the mass
    low, high = max(0, mode - reach), min(tokens, mode + reach)
    load = np.arange(low, high + 1, dtype=np.float64)
    steps = np.log((tokens - load[:-1]) / (load[:-1] + 1)) + math.log(p / (1 - p))
    log_mass = np.concatenate([[0.0], np.cumsum(steps)])
    mass = np.exp(log_mass - log_mass.max())
    mass /= mass.sum()
    share = load / (tokens * top_k)
    term = np.where(share > 0, share * np.log(np.where(share > 0, share, 1.0)), 0.0)
    return -experts * float(mass @ term) / math.log(experts)


@lru_cache(maxsize=4096)
def uniform_hottest_over_mean(tokens: int, experts: int, top_k: int) -> float | None:
    """Expected ratio of the largest load to the mean; arguments and ``None`` as in ``uniform_load_entropy``."""
    if not tokens:
        return None
    if top_k == experts:
        return 1.0
    if tokens == 1:
        return experts / top_k
    if tokens * top_k > SAMPLED_CHOICES:
        return _normal_limit(tokens, experts, top_k)
    point = _POINTS_AN_OCTAVE * math.log2(tokens)
    below, above = (round(2 ** (at / _POINTS_AN_OCTAVE)) for at in (math.floor(point), math.floor(point) + 1))
    ends = [(_drawn(at, experts, top_k) - 1) * math.sqrt(at) for at in (below, above)]
    excess = float(np.interp(math.log(tokens), [math.log(below), math.log(above)], ends))
    return 1 + excess / math.sqrt(tokens)


def _normal_limit(tokens: int, experts: int, top_k: int) -> float:
    """The expected ratio of the largest load to the mean, for many tokens."""
    p = top_k / experts
    first, second = _maximum_moments(experts)
    variance = tokens * p * (1 - p)
    skewness = (1 - 2 * p) / math.sqrt(variance)
    deviations = first + skewness * (second - 1) / 6
    return 1 + deviations * math.sqrt(variance * experts / (experts - 1)) / (tokens * p)


@lru_cache(maxsize=256)
def _maximum_moments(count: int) -> tuple[float, float]:
    """Mean and mean square of the maximum of ``count`` independent standard normals, by quadrature."""
    z = np.linspace(-9.0, 12.0, 21_001)
    distribution = 0.5 * np.array([math.erfc(-x / math.sqrt(2)) for x in z])
    mass = np.diff(distribution**count)
    middle = (z[1:] + z[:-1]) / 2
    return float(mass @ middle), float(mass @ middle**2)


@lru_cache(maxsize=4096)
def _drawn(tokens: int, experts: int, top_k: int) -> float:
    """The ratio of the largest load to the mean, mean over draws."""
    draws = min(_MOST_DRAWS, DRAWN_CHOICES // (tokens * top_k))
    generator = np.random.default_rng([SEED, tokens, experts, top_k])
    return float(_largest_loads(tokens, experts, top_k, draws, generator).mean()) * experts / (tokens * top_k)


@njit()
def _largest_loads(
    tokens: int, experts: int, top_k: int, draws: int, generator: np.random.Generator
) -> npt.NDArray[np.int64]:
    """The largest load in each draw, i64 ``[draws]``; a draw is ``tokens`` uniform choices of ``top_k`` experts."""
    order = np.arange(experts)
    largest = np.zeros(draws, np.int64)
    for draw in range(draws):
        load = np.zeros(experts, np.int64)
        for _ in range(tokens):
            for i in range(top_k):  # the first steps of a shuffle, which may start from any order
                j = generator.integers(i, experts)
                order[i], order[j] = order[j], order[i]
                load[order[i]] += 1
        largest[draw] = load.max()
    return largest
