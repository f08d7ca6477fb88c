"""Which of a row's candidates is fastest on the tuning tokens, and at what price of a transfer.

Prices are tried coarsely first. While the best is the highest of its candidate, twice that is tried as well: the values
may exceed what the first prices were made for, and where nothing should move a price must be able to say so. Then, of
the fastest candidate, the prices halfway to the neighbours of the best are tried, and again. Time over price is flat
near its least, so two rounds are enough.
"""

from collections.abc import Callable

from catalog.config import StrictModel
from predictor.policies.policy import MOST_PRICE, Policy
from predictor.policies.rows import Candidate, Row

REFINEMENTS = 2


class Tried(StrictModel):
    """A policy on the tuning tokens.

    Attributes:
        policy: which.
        step_s: the mean step's time.
    """

    policy: Policy
    step_s: float


def tune(row: Row, step_s: Callable[[Policy], float]) -> tuple[Tried, ...]:
    """Everything that was tried; of the fastest the first is the row's policy (see `fastest`).

    Args:
        row: whose candidates.
        step_s: the mean step's time of a policy, s.
    """
    tried = [(candidate, _try(candidate, price, step_s)) for candidate in row.candidates for price in candidate.prices]
    for following in (*[_twice] * MOST_PRICE.bit_length(), *[_halfway] * REFINEMENTS):
        candidate, best = min(tried, key=lambda one: one[1].step_s)
        prices = sorted(one.policy.price for other, one in tried if other is candidate)
        tried += [(candidate, _try(candidate, price, step_s)) for price in following(prices, best.policy.price)]
    return tuple(one for _, one in tried)


def fastest(tried: tuple[Tried, ...]) -> Tried:
    """The first of the least time."""
    return min(tried, key=lambda one: one.step_s)


def _try(candidate: Candidate, price: int, step_s: Callable[[Policy], float]) -> Tried:
    policy = candidate.policy.model_copy(update={"price": price})
    return Tried(policy=policy, step_s=step_s(policy))


def _twice(prices: list[int], price: int) -> list[int]:
    """Beyond all ``prices``, where ``price`` is the highest of them."""
    return [2 * price] if price == prices[-1] > 0 and 2 * price <= MOST_PRICE else []


def _halfway(prices: list[int], price: int) -> list[int]:
    """Between ``price`` and its neighbours in ``prices``."""
    at = prices.index(price)
    return [(price + neighbour) // 2 for neighbour in prices[max(0, at - 1) : at + 2] if abs(neighbour - price) > 1]
