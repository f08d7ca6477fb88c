"""The twin, directed: every rule on tables small enough to work out by hand."""

import numpy as np
import pytest

from catalog.errors import ForestageError
from predictor.st_moe.events import NO_ERROR, EngineCounter, EventError, Request, RoutingEvent
from predictor.st_moe.parameters import EngineConfiguration, EngineLimits
from predictor.st_moe.tables import OFF_CYCLES, REJECTED_CYCLES, StMoeTables, event_cycles

LIMITS = EngineLimits(experts_max=8, layers_max=4, top_k_max=4, candidates_max=4)


def tables(rows: dict[tuple[int, int], list[tuple[int, int]]], **settings: object) -> StMoeTables:
    """Tables of 3 layers × 8 experts, top-2, 2 candidates; rows not named list (0, 1) at confidence 0."""
    values = {"experts": 8, "layers": 3, "top_k": 2, "candidates": 2, "issue_limit": 8, **settings}
    candidates = np.tile(np.array([0, 1], np.int16), (3, 8, 1))
    confidences = np.zeros((3, 8, 2), np.int8)
    for (layer, expert), entries in rows.items():
        candidates[layer, expert] = [entry[0] for entry in entries]
        confidences[layer, expert] = [entry[1] for entry in entries]
    return StMoeTables(LIMITS, EngineConfiguration.model_validate(values), candidates, confidences)


def event(layer: int, *experts: int, token: bool = False, sequence: bool = False) -> RoutingEvent:
    return RoutingEvent(layer, experts, starts_token=token or sequence, starts_sequence=sequence)


def entries(twin: StMoeTables, layer: int, expert: int) -> list[tuple[int, int]]:
    """The row as the memory image has it."""
    words = twin.to_memory_image()[twin.rows.address(layer, expert)]
    candidates, confidences = twin.rows.unpack(sum(int(word) << 32 * nth for nth, word in enumerate(words)))
    return list(zip(candidates.tolist(), confidences.tolist(), strict=True))[:2]


ROWS = {(0, 2): [(5, 3), (6, 1)], (0, 3): [(6, 2), (7, 1)]}


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, [(5, 3), (6, 2)]),
        ({"aggregation": "sum"}, [(5, 3), (6, 3)]),
        ({"threshold": 1}, [(5, 3), (6, 2), (7, 1)]),
        ({"threshold": 1, "issue_limit": 1}, [(5, 3)]),
        ({"issue_limit": 0}, []),
        ({"candidates": 1}, None),  # the tables given have two
    ],
)
def test_requests_are_the_best_scores_first(
    settings: dict[str, object], expected: list[tuple[int, int]] | None
) -> None:
    if expected is None:
        with pytest.raises(ValueError, match="shape"):
            tables(ROWS, **settings)
        return
    result = tables(ROWS, **settings).step(event(0, 2, 3, sequence=True))
    last = len(expected)
    assert result.requests == tuple(Request(1, e, score, n == last) for n, (e, score) in enumerate(expected, 1))


def test_history_adds_its_confidence() -> None:
    twin = tables(ROWS, ht_confidence=2)
    twin.step(event(0, 2, 3, sequence=True))
    twin.step(event(1, 7, 4))
    result = twin.step(event(0, 2, 3, token=True))
    # Expert 7: after the verification a table confidence of 2, and 2 of the history; 4 from the history alone.
    assert [(r.expert, r.score) for r in result.requests] == [(7, 4), (4, 2), (5, 2)]


def test_history_is_forgotten_at_a_sequence_start_and_tables_are_not() -> None:
    twin = tables(ROWS, ht_confidence=2)
    twin.step(event(0, 2, 3, sequence=True))
    twin.step(event(1, 7, 4))
    result = twin.step(event(0, 2, 3, sequence=True))
    assert [(r.expert, r.score) for r in result.requests] == [(5, 2), (7, 2)]


def test_verification_saturates_and_replaces() -> None:
    twin = tables({(0, 2): [(5, 3), (6, 0)], (0, 3): [(6, 0), (7, 0)]})
    twin.step(event(0, 2, 3, sequence=True))
    result = twin.step(event(1, 5, 4))
    assert entries(twin, 0, 2) == [(5, 3), (4, 2)]  # 5 hit at 3; 6 gives way to the one unlisted expert
    assert entries(twin, 0, 3) == [(5, 2), (4, 2)]  # both give way, to the needed ones in order
    assert [update.address for update in result.updates] == [2, 3]
    assert [twin.rows.unpack(update.row)[0][:2].tolist() for update in result.updates] == [[5, 4], [5, 4]]
    assert twin.counters[EngineCounter.REPLACEMENTS] == 3
    assert twin.counters[EngineCounter.CANDIDATE_HITS] == 1
    assert twin.counters[EngineCounter.CANDIDATE_MISSES] == 3


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"replacement": "none"}, [(6, 0), (7, 0)]),
        ({"replacement": "reversed"}, [(4, 2), (5, 2)]),
        ({"replacement_confidence": 1}, [(5, 1), (4, 1)]),
    ],
)
def test_replacement_choices(settings: dict[str, object], expected: list[tuple[int, int]]) -> None:
    twin = tables({(0, 3): [(6, 0), (7, 0)]}, **settings)
    twin.step(event(0, 2, 3, sequence=True))
    twin.step(event(1, 5, 4))
    assert entries(twin, 0, 3) == expected


def test_a_given_up_candidate_stays_where_nothing_is_unlisted() -> None:
    twin = tables({(0, 3): [(5, 1), (7, 0)]}, top_k=1)
    twin.step(event(0, 3, sequence=True))
    twin.step(event(1, 5))
    assert entries(twin, 0, 3) == [(5, 2), (7, 0)]


def test_a_missing_source_event_is_not_verified() -> None:
    twin = tables(ROWS)
    twin.step(event(0, 2, 3, sequence=True))
    twin.step(event(1, 5, 4))
    twin.step(event(0, 2, 3, token=True))
    before = twin.to_memory_image()
    result = twin.step(event(1, 5, 4, token=True))  # a token whose layer 0 was not recorded
    assert result.updates == ()
    assert (twin.to_memory_image() == before).all()
    assert not twin.predicted_scores(1).any()


def test_lookahead_correlates_distant_layers() -> None:
    twin = tables(ROWS, lookahead=2)
    first = twin.step(event(0, 2, 3, sequence=True))
    assert {request.layer for request in first.requests} == {2}
    assert twin.step(event(1, 5, 4)).updates == ()
    last = twin.step(event(2, 5, 4))
    assert last.requests == ()
    assert [update.address for update in last.updates] == [2, 3]


@pytest.mark.parametrize(
    ("bad", "error"),
    [
        (event(3, 1, 2), EventError.LAYER),
        (event(0, 1, 6), EventError.EXPERT),
        (event(0, 1, 1), EventError.DUPLICATE),
        (event(3, 7, 7), EventError.LAYER | EventError.EXPERT | EventError.DUPLICATE),
    ],
)
def test_a_bad_event_changes_nothing_and_is_remembered(bad: RoutingEvent, error: EventError) -> None:
    twin = _six_experts()
    before = twin.to_memory_image()
    result = twin.step(bad)
    assert (result.error, result.cycles, result.requests, result.updates) == (error, REJECTED_CYCLES, (), ())
    assert twin.errors == error
    assert twin.counters[EngineCounter.REJECTED] == 1
    assert (twin.to_memory_image() == before).all()
    assert twin.step(event(0, 1, 2)).error == NO_ERROR
    assert twin.errors == error


def _six_experts() -> StMoeTables:
    configuration = EngineConfiguration(experts=6, layers=3, top_k=2, candidates=2, issue_limit=6)
    return StMoeTables(
        LIMITS, configuration, np.tile(np.array([0, 1], np.int16), (3, 6, 1)), np.ones((3, 6, 2), np.int8)
    )


def test_start_flags_of_a_rejected_event_take_effect() -> None:
    twin = tables(ROWS)
    twin.step(event(0, 2, 3, sequence=True))
    twin.step(event(0, 1, 1, token=True))
    assert twin.step(event(1, 5, 4)).updates == ()


def test_off_discards_and_forgets() -> None:
    twin = tables(ROWS)
    twin.step(event(0, 2, 3, sequence=True))
    twin.enabled = False
    assert twin.step(event(1, 5, 4)).cycles == OFF_CYCLES
    twin.enabled = True
    assert twin.step(event(1, 5, 4)).updates == ()
    assert twin.counters[EngineCounter.DISCARDED] == 1
    assert twin.counters[EngineCounter.EVENTS] == 2


def test_an_image_restores_the_tables_bit_for_bit() -> None:
    twin = tables(ROWS)
    image = twin.to_memory_image()
    image[twin.rows.address(0, 3), 0] ^= 1 << twin.rows.entry_bits + 1  # of the second entry's expert
    other = StMoeTables.from_memory_image(LIMITS, twin.configuration, image)
    assert entries(other, 0, 3) == [(6, 2), (5, 1)]
    assert (other.to_memory_image() == image).all()


def test_event_of_another_width_is_refused() -> None:
    with pytest.raises(ValueError, match="3 experts"):
        tables(ROWS).step(event(0, 1, 2, 3))


def test_cycles_of_each_kind_of_event() -> None:
    # experts_max 8: a tree of 3 levels.
    cycles = {
        (predicts, verifies): event_cycles(LIMITS, top_k=2, requests=4, predicts=predicts, verifies=verifies)
        for predicts in (False, True)
        for verifies in (False, True)
    }
    assert cycles == {(False, False): 2, (False, True): 7, (True, False): 14, (True, True): 14}
    assert event_cycles(LIMITS, top_k=4, requests=0, predicts=True, verifies=True) == 13


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("experts", 9, "experts is 9.*at most 8.*--experts-max 16"),
        ("layers", 5, "layers is 5.*at most 4.*--layers-max 5"),
        ("top_k", 5, "top_k is 5.*--top-k-max 5"),
        ("candidates", 6, "candidates is 6.*--candidates-max 6"),
    ],
)
def test_a_model_beyond_the_limits_names_the_option(field: str, value: int, message: str) -> None:
    shape = {"layers": 4, "experts": 8, "top_k": 4, "candidates": 4, field: value}
    with pytest.raises(ForestageError, match=f"^gpt.npz: {message}"):
        LIMITS.check_model(**shape, origin="gpt.npz")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"experts_max": 48}, "power of two; the next is 64"),
        ({"experts_max": 4}, "top_k_max .8. exceeds experts_max .4."),
        ({"expert_max": 4}, "nearest known key is 'experts_max'"),
    ],
)
def test_impossible_limits_are_refused(values: dict[str, int], message: str) -> None:
    with pytest.raises(ForestageError, match=message):
        EngineLimits.parse(values, origin="test")


def test_threshold_beyond_any_score_is_refused() -> None:
    with pytest.raises(ForestageError, match="threshold 16 exceeds the largest score, 15"):
        tables(ROWS, threshold=16)


@pytest.mark.parametrize(
    ("candidates", "confidence", "message"), [((3, 3), 1, "twice"), ((0, 8), 1, "candidate"), ((0, 1), 4, "confidence")]
)
def test_impossible_tables_are_refused(candidates: tuple[int, int], confidence: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tables({(0, 0): [(candidates[0], confidence), (candidates[1], confidence)]})


@pytest.mark.parametrize("top_k", range(1, 17))
def test_a_score_has_bits_for_every_row_and_the_history(top_k: int) -> None:
    limits = EngineLimits(experts_max=64, top_k_max=top_k, candidates_max=1)
    largest = 3 * top_k + 3
    assert 1 << limits.score_bits - 1 <= largest < 1 << limits.score_bits


def test_the_largest_score_needs_the_bit_of_the_history() -> None:
    """Five rows at full confidence make 15, which four bits hold; the history makes it 18."""
    limits = EngineLimits(experts_max=8, layers_max=2, top_k_max=5, candidates_max=1)
    configuration = EngineConfiguration(
        experts=8, layers=2, top_k=5, candidates=1, issue_limit=8, aggregation="sum", ht_confidence=3
    )
    everywhere = np.full((2, 8, 1), 6, np.int16)
    twin = StMoeTables(limits, configuration, everywhere, np.full((2, 8, 1), 3, np.int8))
    twin.step(RoutingEvent(0, (0, 1, 2, 3, 4), starts_sequence=True))
    twin.step(RoutingEvent(1, (6, 1, 2, 3, 4)))
    (best, *_) = twin.step(RoutingEvent(0, (0, 1, 2, 3, 4), starts_token=True)).requests
    assert (best.expert, best.score) == (6, 18)
    assert best.score < 1 << limits.score_bits


def test_each_slot_has_its_history_and_each_domain_its_bank() -> None:
    """Two sequences of two domains, event by event in turn, do as each does alone."""
    limits = LIMITS.model_copy(update={"slots_max": 2, "domains_max": 2})
    configuration = EngineConfiguration(experts=8, layers=4, top_k=2, candidates=3, issue_limit=8, threshold=1)
    generator = np.random.default_rng(3)
    shape = (2, 4, 8, 3)
    candidates = generator.permuted(np.tile(np.arange(8), (*shape[:3], 1)), axis=3)[..., :3].astype(np.int16)
    confidences = generator.integers(0, 4, shape).astype(np.int8)
    both = StMoeTables(limits, configuration.model_copy(update={"domains": 2}), candidates, confidences)
    alone = [StMoeTables(limits, configuration, candidates[n], confidences[n]) for n in range(2)]
    for token in range(6):
        for layer in range(4):
            for slot in (0, 1):
                experts = tuple(generator.choice(8, 2, replace=False).tolist())
                starts = {"starts_token": layer == 0, "starts_sequence": layer == 0 and token in (0, 4)}
                found = both.step(RoutingEvent(layer, experts, **starts, slot=slot, domain=1 - slot))
                expected = alone[1 - slot].step(RoutingEvent(layer, experts, **starts))
                assert found.requests == expected.requests
                assert [update.row for update in found.updates] == [update.row for update in expected.updates]
    image = both.rows.tables(both.to_memory_image())
    for n in range(2):
        assert (image[0][:, n] == alone[n].rows.tables(alone[n].to_memory_image())[0][:, 0]).all()


def test_a_sequence_of_an_unknown_domain_is_rejected_until_its_slot_starts_another() -> None:
    tables = StMoeTables(
        LIMITS.model_copy(update={"slots_max": 3}),
        EngineConfiguration(experts=8, layers=4, top_k=2, candidates=1, issue_limit=8),
        np.zeros((4, 8, 1), np.int16),
        np.zeros((4, 8, 1), np.int8),
    )
    assert tables.step(RoutingEvent(0, (1, 2), starts_sequence=True, domain=1)).error is EventError.DOMAIN
    assert tables.step(RoutingEvent(1, (1, 2))).error is EventError.DOMAIN
    assert tables.step(RoutingEvent(1, (1, 2), slot=1)).error is NO_ERROR
    assert tables.step(RoutingEvent(0, (1, 2), starts_sequence=True)).error is NO_ERROR
    assert tables.step(RoutingEvent(1, (1, 2), slot=3)).error is EventError.SLOT


def test_more_domains_than_banks_are_refused() -> None:
    configuration = EngineConfiguration(experts=8, layers=4, top_k=2, candidates=1, issue_limit=8, domains=3)
    with pytest.raises(ForestageError, match="--domains-max 4"):
        StMoeTables(LIMITS, configuration, np.zeros((3, 4, 8, 1), np.int16), np.zeros((3, 4, 8, 1), np.int8))
