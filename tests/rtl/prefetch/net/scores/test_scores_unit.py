"""The scores unit against the kernels of the twin, bit for bit and cycle for cycle."""

from typing import Any

import numpy as np
import pytest

pytest.importorskip("amaranth", reason="needs the extra 'hardware'")

from predictor.row_network.twin import RowNetwork
from tests.learned_samples import random_next_use, random_predictor
from tests.rtl.prefetch.net.scores.scores_bench import (
    Command,
    Expected,
    limits_for,
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
    return next_layer.network, next_use.network


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
    commands = shuffled_tokens(networks, generator, tokens=4, slots=slots, reach=4000)
    check(networks, commands, slots=slots, threshold=9000, wanted=3, waits=generator)
