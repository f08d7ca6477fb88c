"""The scores unit against the kernels of the twin, bit for bit and cycle for cycle."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("amaranth", reason="needs the extra 'hardware'")

from predictor.row_network.score_cycles import (
    adapt_cycle,
    adapt_interval,
    command_interval,
    prefetch_cycle,
    values_cycle,
)
from predictor.row_network.twin import RowNetwork
from rtl.prefetch.net.scores.layouts import NEXT_LAYER, NEXT_USE
from tests.learned_samples import random_next_use, random_predictor
from tests.rtl.prefetch.net.scores.scores_bench import (
    Adapt,
    Clear,
    Command,
    Expected,
    Score,
    limits_for,
    program_of,
    run,
    shuffled_tokens,
)


def two_networks(
    *, layers: int, experts: int, top_k: int, lookahead: int = 1, hidden: tuple[int, int] = (6, 5),
    horizons: tuple[int, ...] = (1, 3), seed: int = 0,
) -> tuple[RowNetwork, RowNetwork]:  # fmt: skip
    """A next-layer network that adapts and a next-use one, with random tables."""
    shape: dict[str, Any] = {"layers": layers, "experts": experts, "top_k": top_k}
    next_layer = random_predictor(**shape, lookahead=lookahead, seed=seed, hidden=hidden[0])
    next_use = random_next_use(np.random.default_rng(seed), **shape, hidden=hidden[1], horizons=horizons)
    networks = next_layer.network, next_use.network
    for network in networks:  # wider sums of products saturate no more often
        network.tables.score_shifts[:] += max(0, network.config.hidden.bit_length() - 6)
        assert np.shares_memory(network.tables.score_shifts, network.compiled_tables.score_shifts)
    return networks


def check(networks: tuple[RowNetwork, RowNetwork], commands: list[Command], **given: Any) -> Any:
    """Run the commands and compare everything that is answered."""
    limits = limits_for(*networks, slots=given.pop("slots"), lanes=given.pop("lanes", 64))
    threshold, wanted = given.get("threshold", 1), given.get("wanted", 8)
    expected = Expected(networks, limits.slots, threshold, wanted)
    for command in commands:
        expected.take(command)
    log = run(networks, commands, limits=limits, **given)
    assert log.scored == expected.scored
    assert log.prefetch == expected.prefetch
    assert log.values == expected.values
    return log


@pytest.mark.parametrize(
    ("shape", "slots"),
    [
        ({"layers": 3, "experts": 9, "top_k": 3, "lookahead": 1}, 3),
        ({"layers": 4, "experts": 4, "top_k": 1, "lookahead": 2, "horizons": (2, 4, 8, 16)}, 1),
        ({"layers": 2, "experts": 5, "top_k": 2, "hidden": (130, 65), "horizons": (1,)}, 2),
    ],
    ids=["small", "few experts", "several words"],
)
def test_everything_equals_the_kernels_with_random_waits(shape: dict[str, Any], slots: int) -> None:
    networks = two_networks(**shape)
    generator = np.random.default_rng(slots)
    commands = shuffled_tokens(networks, generator, tokens=3, slots=slots, reach=4000)
    check(networks, commands, slots=slots, threshold=9000, wanted=3, waits=generator, over_the_bus=slots == 2)


CYCLE_SHAPES = {
    "odd": {"layers": 2, "experts": 9, "top_k": 3, "hidden": (6, 5)},
    "hidden 104": {"layers": 2, "experts": 11, "top_k": 2, "hidden": (104, 64), "horizons": (1, 2, 3, 4)},
    "three words": {"layers": 2, "experts": 4, "top_k": 1, "hidden": (129, 65), "horizons": (2,)},
}
LARGE_SHAPES = {
    "gpt-oss-20b": ({"layers": 2, "experts": 32, "top_k": 4, "hidden": (128, 64), "horizons": (2, 4, 8, 16)}, 128),
    "gpt-oss-20b, 64 lanes": ({"layers": 2, "experts": 32, "top_k": 4, "hidden": (128, 64), "horizons": (1, 2)}, 64),
    "128 experts": ({"layers": 2, "experts": 128, "top_k": 8, "hidden": (128, 64), "horizons": (2, 4, 8, 16)}, 128),
    "384 hidden": ({"layers": 2, "experts": 33, "top_k": 4, "hidden": (384, 104), "horizons": (1,)}, 128),
}


def check_cycles(shape: dict[str, Any], lanes: int) -> None:
    """Every command is accepted, and every answer offered, in the cycle that the formulas say, with no waits."""
    networks = two_networks(**shape)
    experts, questions = networks[0].experts, networks[1].config.questions
    generator = np.random.default_rng(experts)
    chosen = [generator.choice(experts, shape["top_k"], replace=False).tolist() for _ in range(3)]

    def sums(head: int) -> np.ndarray:
        return generator.integers(-4000, 4001, networks[head].config.hidden)

    commands: list[Command] = [
        Score(NEXT_LAYER, 0, 0, True, True, sums(0)),
        Adapt(0, 0, chosen[0]),
        Score(NEXT_LAYER, 0, 1, True, True, sums(0)),
        Score(NEXT_USE, 0, 0, True, True, sums(1)),
        Adapt(0, 1, chosen[1]),
        Adapt(0, 0, chosen[2]),
        Score(NEXT_LAYER, 0, 0, True, True, sums(0)),
    ]
    log = check(networks, commands, slots=1, lanes=lanes)
    words = [program_of(network, lanes).settings.words for network in networks]
    taken, shown = log.accepted, log.shown
    assert taken[1] - shown[0] == adapt_cycle(experts, words[0], lanes=lanes)
    assert taken[2] - taken[1] == adapt_interval(experts)
    assert taken[3] - shown[2] == command_interval(experts, words[0])
    assert taken[5] - taken[4] == adapt_interval(experts)
    first = [cycle - shown[n] for cycle, n in zip(log.answered["prefetch"], (0, 2, 6), strict=True)]
    assert first == [prefetch_cycle(experts, words[0], lanes=lanes)] * 3
    told = [cycle - shown[3] for cycle in log.answered["values"]]
    assert told == [values_cycle(experts, questions, words[1], lanes=lanes)]


@pytest.mark.parametrize("shape", CYCLE_SHAPES.values(), ids=CYCLE_SHAPES)
def test_commands_and_answers_come_in_the_cycles_of_the_formulas(shape: dict[str, Any]) -> None:
    check_cycles(shape, 64)


@pytest.mark.long
@pytest.mark.parametrize(("shape", "lanes"), LARGE_SHAPES.values(), ids=LARGE_SHAPES)
def test_large_shapes_keep_the_formulas(shape: dict[str, Any], lanes: int) -> None:
    check_cycles(shape, lanes)


@pytest.mark.long
@pytest.mark.parametrize("lanes", [64, 128])
def test_four_slots_of_gpt_oss_equal_the_kernels(lanes: int) -> None:
    networks = two_networks(**{**LARGE_SHAPES["gpt-oss-20b"][0], "layers": 3, "lookahead": 2})
    generator = np.random.default_rng(lanes)
    commands = shuffled_tokens(networks, generator, tokens=3, slots=4, reach=20_000)
    log = check(
        networks, commands, slots=4, lanes=lanes, threshold=65_200, value_lanes=16, waits=generator,
        over_the_bus=lanes == 128,
    )  # fmt: skip
    assert any(0 < len(experts) < 8 for _, experts, _ in log.prefetch)


def test_the_latency_of_gpt_oss_leaves_the_sums_their_share() -> None:
    """Of 64 cycles at 128 lanes (32 experts), 112 at 64 lanes, 208 at 128 lanes (128 experts)."""
    assert prefetch_cycle(32, 1, lanes=128) == 49
    assert prefetch_cycle(32, 2, lanes=64) == 79
    assert prefetch_cycle(128, 1, lanes=128) == 145


def test_every_clip_is_hit() -> None:
    """Sums at both ends of 32 bits, the largest weights, small shifts: hidden units and scores saturate both ways."""
    networks = two_networks(layers=2, experts=5, top_k=2, hidden=(70, 64))
    generator = np.random.default_rng(1)
    for network in networks:
        tables = network.compiled_tables
        tables.output[:] = np.where(generator.random(tables.output.shape) < 0.5, -128, 127)
        tables.output[..., 0], tables.output[..., 1] = -128, 127
        tables.score_shifts[:] = (0, 9)
        tables.hidden_shifts[:] = (0, 30)
        tables.bias[:] = generator.choice([-(2**31), 2**31 - 1, 0], tables.bias.shape)
        for name in ("output", "score_shifts", "hidden_shifts", "bias"):
            object.__setattr__(network.tables, name, getattr(tables, name))
    commands = shuffled_tokens(networks, generator, tokens=3, slots=2, reach=2**31 - 1)
    ends = np.array([-(2**31), 2**31 - 1, -1, 0, 1])
    commands = [
        replace(one, now=generator.choice(ends, len(one.now))) if isinstance(one, Score) and n % 2 else one
        for n, one in enumerate(commands)
    ]
    log = check(networks, commands, slots=2)
    scores = [one[4] for one in log.scored]
    assert scores.count(1) > 20
    assert scores.count(4095) > 20


def test_sums_that_come_too_early_are_caught() -> None:
    networks = two_networks(layers=2, experts=4, top_k=1)
    commands: list[Command] = [Score(NEXT_LAYER, 0, 0, True, True, np.zeros(6, int))]
    with pytest.raises(AssertionError, match="sums that no command waits for"):
        check(networks, commands, slots=1, sums_after=2)


def test_a_threshold_that_nothing_reaches_gives_an_empty_answer() -> None:
    networks = two_networks(layers=2, experts=4, top_k=1)
    networks[0].compiled_tables.chances[:] = 9
    commands: list[Command] = [Clear(0), Score(NEXT_LAYER, 0, 0, True, True, np.zeros(6, int))]
    log = check(networks, commands, slots=1, threshold=10)
    assert log.prefetch == [(0, [], [])]
