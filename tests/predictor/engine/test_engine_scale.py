"""A machine's proportions in a replay."""

import pytest

from catalog.errors import ForestageError
from predictor.engine.scale import MachineTimes, replay_times

SLOW = MachineTimes(transfer=529.0, before_gate=60.0, expert=10.0)


def test_a_replay_keeps_the_proportion_of_transfer_and_layer() -> None:
    of = replay_times(SLOW, top_k=4)
    assert of.share == 1  # a layer of 100 at least 400 cycles: a transfer of 2116, and 16 beats take 4096 or 2048
    assert of.transfer_cycles == 4096
    assert of.layers.before_gate_cycles == round(4096 * 60 / 529)
    assert of.layers.expert_cycles == round(4096 * 10 / 529)


def test_a_fast_link_has_all_of_the_bandwidth_and_long_layers() -> None:
    of = replay_times(MachineTimes(transfer=1.0, before_gate=50.0, expert=0.0), top_k=4)
    assert (of.share, of.transfer_cycles, of.layers.before_gate_cycles) == (256, 16, 800)


def test_the_share_is_the_largest_that_leaves_a_layer_its_cycles() -> None:
    machine = MachineTimes(transfer=10.0, before_gate=10.0, expert=0.0)
    of = replay_times(machine, top_k=4)
    assert of.layers.before_gate_cycles >= 400
    assert 16 * 256 / (of.share + 1) < 400


def test_an_expert_too_short_for_the_proportion_is_refused() -> None:
    with pytest.raises(ForestageError, match=r"replay_expert_bytes: 64: .* give 576 or more"):
        replay_times(SLOW, top_k=4, replay_expert_bytes=64)
    assert replay_times(SLOW, top_k=4, replay_expert_bytes=576).share == 1
    with pytest.raises(ForestageError, match="give a transfer and a layer that take time"):
        replay_times(MachineTimes(transfer=0.0, before_gate=1.0, expert=0.0), top_k=4)
