"""The comparison of replacement policies: its bounds, its parts, and what a refresh of priorities does."""

import numpy as np
import pytest

from catalog.errors import ForestageError
from predictor.next_use.calibration import Reliability
from predictor.next_use.evaluate import CacheComparison, compare_caches
from predictor.next_use.parameters import NextUseParameters
from staging.counting import counting_of
from staging.events import events_of
from staging.oracle import oracle_chunks
from staging.results import Capacity
from staging.simulate import run_priorities, simulate
from tests.predictor.next_use.next_use_samples import cyclic_trace, random_predictor, random_trace
from tests.routing import trace_of
from traces import DECODE, RoutingTrace, split
from traces.selection import select_sequences

SHAPE = {"layers": 3, "experts": 8, "top_k": 2}


@pytest.fixture(scope="module")
def trace() -> RoutingTrace:
    return random_trace(np.random.default_rng(3), **SHAPE, tokens=300)


def points(comparison: CacheComparison, policy: str) -> list:
    return [point for point in comparison.points if point.policy == policy]


def moving(comparison: CacheComparison) -> list:
    """The points of caches in which something gives way."""
    return [point for point in comparison.points if not point.policy.startswith("static")]


def test_lru_and_belady_are_the_ends_of_the_scale(trace: RoutingTrace) -> None:
    comparison = compare_caches(trace, capacities=(5, 3), split="all")
    assert comparison.policies == ("static", "lru", "lfu", "ema", "belady")
    assert [point.capacity for point in points(comparison, "lru")] == [3, 5]
    assert [point.share_closed for point in points(comparison, "lru")] == [0, 0]
    assert [point.share_closed for point in points(comparison, "belady")] == [1, 1]
    assert points(comparison, "belady")[0].interval == (1, 1)
    for point in moving(comparison):
        expected = simulate(trace, capacity=point.capacity, policy=point.policy, prefill="token")  # type: ignore[arg-type]
        assert (point.hit_rate, point.loads) == (expected.hit_rate, expected.loads)
    lru, ema, belady = (points(comparison, policy)[0] for policy in ("lru", "ema", "belady"))
    assert ema.share_closed == pytest.approx((lru.loads - ema.loads) / (lru.loads - belady.loads))


@pytest.mark.parametrize(("prompt", "count"), [(4, "decode"), (99, "all")])
def test_placements_are_of_the_part_that_is_run_and_of_the_training_part(prompt: int, count: str) -> None:
    ids = (np.random.default_rng(5).random((96, 2, 8)) ** np.linspace(3, 1, 8)).argsort(axis=-1)[..., -2:]
    trace = trace_of(ids, experts=8, lengths=[12] * 8, prompt=prompt)
    comparison = compare_caches(trace, capacities=(3,), bootstrap={"resamples": 0})
    training, tested = (select_sequences(trace, part) for part in split(trace))

    def used(part: RoutingTrace) -> np.ndarray:
        rows = part.expert_ids[part.phase == DECODE] if count == "decode" else part.expert_ids
        return np.stack([np.bincount(rows[:, layer].ravel(), minlength=8) for layer in range(2)])

    own = used(tested)
    for policy, chosen_by in (("static", own), ("static, profiled", used(training))):
        (point,) = points(comparison, policy)
        held = (-chosen_by).argsort(axis=1, kind="stable")[:, :3]
        assert point.hit_rate == pytest.approx(np.take_along_axis(own, held, 1).sum() / own.sum())
        assert (point.share_closed, point.interval) == (None, None)
    bound, placed = (points(comparison, name)[0].hit_rate for name in ("static", "static, profiled"))
    assert placed <= bound


def test_nothing_is_placed_by_the_part_that_is_run(trace: RoutingTrace) -> None:
    for part in ("train", "all"):
        assert "static, profiled" not in compare_caches(trace, capacities=(3,), split=part).policies


@pytest.mark.parametrize(("prompt", "count", "prefill"), [(4, "decode", "pass"), (99, "all", "token")])
def test_a_prompt_fills_the_cache_in_a_pass_and_only_decode_is_counted(prompt: int, count: str, prefill: str) -> None:
    """Where there is nothing but prompts, they are, token by token."""
    ids = np.random.default_rng(7).random((60, 2, 8)).argsort(axis=-1)[..., :2]
    trace = trace_of(ids, experts=8, lengths=[12] * 5, prompt=prompt)
    comparison = compare_caches(trace, capacities=(3,), split="all")
    assert comparison.count == count
    assert comparison.counted == counting_of(trace).sentence
    for point in moving(comparison):
        asked = {"capacity": 3, "policy": point.policy, "count": count}
        alone = {how: simulate(trace, prefill=how, **asked) for how in ("token", "pass")}  # type: ignore[arg-type]
        assert (point.hit_rate, point.loads) == (alone[prefill].hit_rate, alone[prefill].loads)
        assert alone["token"].hits != alone["pass"].hits


def test_the_decayed_counters_forget_as_they_are_told(trace: RoutingTrace) -> None:
    rates: dict[str, set[float]] = {"ema": set(), "oracle 1": set()}
    for shift in (1, 9):
        comparison = compare_caches(trace, capacities=(3,), split="all", oracle=(1,), ema_shift=shift)
        alone = simulate(trace, capacity=3, policy="ema", ema_shift=shift, prefill="token")
        sighted = oracle_chunks(trace, 1, ema_shift=shift)
        (oracle,) = run_priorities(events_of(trace, by_token=True), "sighted", sighted, [Capacity(3)], count="all")
        for policy, run in (("ema", alone), ("oracle 1", oracle.result())):
            (point,) = points(comparison, policy)
            assert point.hit_rate == run.hit_rate
            rates[policy].add(point.hit_rate)
    assert {policy: len(found) for policy, found in rates.items()} == {"ema": 2, "oracle 1": 2}


def test_an_oracle_that_sees_everything_is_belady(trace: RoutingTrace) -> None:
    comparison = compare_caches(trace, capacities=(4,), split="all", oracle=(1, 400))
    (short,), (long,) = points(comparison, "oracle 1"), points(comparison, "oracle 400")
    assert long.share_closed == 1
    assert short.share_closed is not None
    assert 0 < short.share_closed < 1


def test_an_oracle_ranks_what_comes_soon_then_what_came_often() -> None:
    # Tokens: 0, 1, 0, 2 of one layer, shift 1: each use adds 2^15 − 1.
    chunks = list(oracle_chunks(trace_of([[[0]], [[1]], [[0]], [[2]]], experts=4), 2, ema_shift=1))
    ((first, priorities, none),) = chunks
    assert (first, none) == (0, None)
    # After token 0: 1 comes next, 0 after that; 2 is out of sight.
    assert priorities[0, 0].tolist() == [65536, 65537, 0, 0]
    # After token 1: 0 next, then 2; 1 was just used.
    assert priorities[1, 0].tolist() == [65537, 32767, 65536, 0]
    assert priorities[3, 0].tolist() == [20480, 8192, 32767, 0]
    with pytest.raises(ForestageError, match="oracle: 0: choose 1 to 4096 tokens"):
        next(oracle_chunks(trace_of([[[0]]], experts=4), 0))


@pytest.mark.parametrize("shift", [1, 6])
def test_the_counters_shift_is_handed_on(shift: int, trace: RoutingTrace) -> None:
    comparison = compare_caches(trace, capacities=(4,), split="all", ema_shift=shift)
    (ema,) = points(comparison, "ema")
    shifted = {s: simulate(trace, capacity=4, policy="ema", ema_shift=s).hit_rate_by_layer for s in (shift, 7 - shift)}
    assert ema.hit_rate_by_layer == shifted[shift]
    assert shifted[shift] != shifted[7 - shift]


def test_chunks_of_an_oracle_join(monkeypatch: pytest.MonkeyPatch, trace: RoutingTrace) -> None:
    whole = [part for _, part, _ in oracle_chunks(trace, 5)]
    assert len(whole) == 1
    monkeypatch.setattr("staging.oracle.CHUNK_TOKENS", 7)
    pieces = np.concatenate([part for _, part, _ in oracle_chunks(trace, 5)])
    assert pieces.tolist() == whole[0].tolist()


def test_the_test_part_is_run() -> None:
    trace = cyclic_trace(sequences=10)
    comparison = compare_caches(trace, capacities=(4,))
    assert comparison.sequences == 2
    assert comparison.tokens == select_sequences(trace, split(trace)[1]).tokens
    assert comparison.split == "test"
    assert compare_caches(trace, capacities=(4,), split="train").sequences == 8


def test_a_predictor_joins_and_a_second_refreshes_it(trace: RoutingTrace) -> None:
    generator = np.random.default_rng(1)
    own, ahead = (random_predictor(generator, **SHAPE, lookahead=d) for d in (0, 1))
    alone = compare_caches(trace, own, capacities=(9,), scope="global", split="all")
    both = compare_caches(trace, own, ahead=ahead, capacities=(9,), scope="global", split="all")
    assert alone.policies[-5:] == ("lru", "lfu", "ema", "next use", "belady")
    assert (alone.next_use, alone.ahead, both.ahead) == ("nothing", None, "nothing")
    # The second one's priorities are set one layer before their own: at the gate below.
    told = [
        (0, *(np.concatenate([part.copy() for _, part in each.priority_chunks(trace)]) for each in (own, ahead))),
    ]
    room = [Capacity(9, scope="global")]
    (run,) = run_priorities(events_of(trace, by_token=True), "told", told, room, lookahead=1, count=both.count)
    assert points(both, "next use")[0].hit_rate == run.result().hit_rate
    assert points(both, "next use")[0].hit_rate != points(alone, "next use")[0].hit_rate
    assert points(alone, "lru") == points(both, "lru")


def test_progress_ends_at_its_total(trace: RoutingTrace) -> None:
    steps: list[tuple[int, int]] = []
    own = random_predictor(np.random.default_rng(1), **SHAPE)
    settings = {"capacities": (3, 5), "split": "all", "oracle": (2,)}
    compare_caches(trace, own, progress=lambda done, total: steps.append((done, total)), **settings)
    assert steps == [(done, 10) for done in range(1, 11)]


def test_what_does_not_fit_is_refused(trace: RoutingTrace) -> None:
    generator = np.random.default_rng(1)
    own, ahead = (random_predictor(generator, **SHAPE, lookahead=d) for d in (0, 1))
    for arguments, message in [
        ({"capacities": ()}, "capacities"),
        ({"capacities": (0,)}, "capacity: 0: give 1 or more"),
        ({"capacities": (4,), "scope": "rack"}, "scope"),
        ({"capacities": (4,), "orcale": (1,)}, "unknown key 'orcale'; the nearest known key is 'oracle'"),
        ({"capacities": (4,), "predictor": ahead}, "trained for lookahead 1; give one of lookahead 0"),
        ({"capacities": (4,), "predictor": own, "ahead": own}, "needs a lookahead of 1 or more"),
        ({"capacities": (4,), "ahead": ahead}, "needs a lookahead of 1 or more"),
    ]:
        with pytest.raises(ForestageError, match=message):
            compare_caches(trace, **{"split": "all", **arguments})
    single = trace_of([[[0], [1]]] * 3, experts=8)
    with pytest.raises(ForestageError, match="the test part has no sequence"):
        compare_caches(single, capacities=(2,))


def test_chances_are_held_against_what_came() -> None:
    # One layer of 4 experts, horizons 1 and 2 of the tokens after this one: 0, 1, 2, 0 | 3, 3.
    trace = trace_of([[[0]], [[1]], [[2]], [[0]], [[3]], [[3]]], experts=4, lengths=[4, 2])
    reliability = Reliability(trace, NextUseParameters(horizons=(1, 2)))
    scores = np.full((6, 1, 2, 4), -128, np.int8)  # chance 0
    scores[0, 0, 0, 1] = 127  # certain, and true
    scores[1, 0, 0, 1] = 127  # certain, and false
    scores[4:, 0, 1] = 127  # beyond the end of the sequence: counts for nothing
    reliability.add(0, scores[:2])
    reliability.add(2, scores[2:])
    one, two = reliability.result()
    assert (one.horizon, two.horizon) == (1, 2)
    # Horizon 1 is known of 4 tokens, horizon 2 of 2; each token's next wants one expert.
    assert one.wanted == 4 / 16
    assert two.wanted == 4 / 8
    assert one.bin_share == [14 / 16] + [0] * 14 + [2 / 16]
    assert (one.bin_chance[0], one.bin_chance[1], one.bin_chance[15]) == (0, None, 1)
    assert (one.bin_wanted[0], one.bin_wanted[15]) == (3 / 14, 1 / 2)
    assert one.calibration_error == pytest.approx((3 + 1) / 16)
    assert two.calibration_error == pytest.approx(4 / 8)
