"""The price of a transfer is sought coarsely, then halfway to the neighbours of the best."""

from predictor.policies.policy import Eviction, Policy
from predictor.policies.rows import FETCH, Candidate, Row
from predictor.policies.tuning import fastest, tune

FREQUENCY = Policy(eviction=Eviction.FREQUENCY, background=True)
LEARNED = Policy(eviction=Eviction.LEARNED, background=True)


def row(*candidates: Candidate) -> Row:
    return Row("row", FETCH, candidates)


def test_a_price_between_the_coarse_ones_is_found() -> None:
    found = tune(row(Candidate(LEARNED, (0, 400, 800))), lambda policy: abs(policy.price - 510))
    assert [one.policy.price for one in found] == [0, 400, 800, 200, 600, 500, 700]
    assert fastest(found).policy.price == 500


def test_only_the_fastest_candidates_price_is_refined() -> None:
    def step_s(policy: Policy) -> float:
        return abs(policy.price - 90) + (1000 if policy.eviction is Eviction.FREQUENCY else 0)

    found = tune(row(Candidate(FREQUENCY, (0, 400)), Candidate(LEARNED, (0, 400))), step_s)
    prices = {eviction: [one.policy.price for one in found if one.policy.eviction is eviction] for eviction in Eviction}
    assert prices[Eviction.FREQUENCY] == [0, 400]
    assert prices[Eviction.LEARNED] == [0, 400, 200, 100]
    assert fastest(found).policy == LEARNED.model_copy(update={"price": 100})


def test_the_highest_price_is_doubled_while_it_is_the_best() -> None:
    found = tune(row(Candidate(LEARNED, (0, 400))), lambda policy: abs(policy.price - 1400))
    assert [one.policy.price for one in found] == [0, 400, 800, 1600, 3200, 1200, 2400, 1400, 2000]
    assert fastest(found).policy.price == 1400


def test_no_price_exceeds_what_a_policy_may_have() -> None:
    found = tune(row(Candidate(LEARNED, (0, 1 << 22))), lambda policy: -policy.price)
    assert max(one.policy.price for one in found) == 1 << 23


def test_of_equals_the_first_is_chosen() -> None:
    found = tune(row(Candidate(FREQUENCY, (0, 400)), Candidate(LEARNED)), lambda policy: 1.0)
    assert fastest(found).policy == FREQUENCY


def test_a_policy_without_a_free_price_is_tried_once() -> None:
    found = tune(row(Candidate(LEARNED)), lambda policy: 1.0)
    assert [one.policy for one in found] == [LEARNED]
