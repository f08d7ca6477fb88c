"""One expert by tokens: the times of each place, and from how many tokens on memory loses to it."""

import numpy as np
import pytest

from catalog import load_catalog
from perfmodel.config import SimulationConfig
from perfmodel.costs import CostModel
from perfmodel.expert_times import MOST_TOKENS, ExpertTimes, _lost, expert_times
from perfmodel.in_memory import ExpertMemory
from perfmodel.in_memory_config import InMemory

CATALOG = load_catalog()


def times_of(model: str = "gpt-oss-20b", machine: str = "A100-80GB", **settings: object) -> ExpertTimes:
    memory = InMemory.model_validate(settings)
    config = SimulationConfig(machine=machine, host_gb_per_s=76, host_tflops=1, host_latency_us=5, in_memory=memory)
    return expert_times(model, config, tokens=tuple(range(1, 257)))


def test_each_place_takes_what_its_parts_say() -> None:
    of = times_of()
    costs = CostModel(CATALOG.find_model("gpt-oss-20b"), CATALOG.machines.find("A100-80GB"))
    memory = ExpertMemory.of(InMemory(), costs)
    at = of.times[2]  # three tokens
    alone = 2e-6 + (memory.input_ps(3) + memory.expert_ps(3) + 3 * memory.output_ps()) * 1e-12
    assert at.in_memory_s == pytest.approx(alone)
    assert at.in_memory_more_s == pytest.approx((memory.expert_ps(3) / 8 + 3 * memory.output_ps()) * 1e-12)
    assert at.resident_s == pytest.approx(costs.expert(3).duration_ps * 1e-12)
    assert at.fetched_s == pytest.approx(costs.expert_bytes / 300e9 + at.resident_s, rel=1e-6)
    assert at.host_fetched_s == pytest.approx(costs.expert_bytes / 32e9 + at.resident_s, rel=1e-6)
    work_s = max(costs.expert_bytes / 76e9, 3 * costs.model.expert_flops / 1e12)
    assert at.host_s == pytest.approx(2 * (5e-6 + 3 * 2880 * 2 / 32e9) + work_s, rel=1e-4)


@pytest.mark.parametrize("machine", ["A100-80GB", "H100-80GB"])
@pytest.mark.parametrize("model", ["gpt-oss-20b", "DeepSeek-V2-Lite"])
def test_memory_loses_from_where_its_curve_stays_above_the_others(model: str, machine: str) -> None:
    of = times_of(model, machine)
    for lost, name, own in (
        (of.lost.to_resident, "resident_s", "in_memory_s"),
        (of.lost.to_fetched, "fetched_s", "in_memory_s"),
        (of.lost.to_host_fetched, "host_fetched_s", "in_memory_s"),
        (of.lost.more_to_resident, "resident_s", "in_memory_more_s"),
    ):
        assert lost is not None
        slower = [getattr(row, own) > getattr(row, name) for row in of.times]
        assert all(slower[lost - 1 :])
        assert lost == 1 or not slower[lost - 2]


def test_a_place_that_is_never_left_behind_is_told_as_none() -> None:
    of = times_of()
    assert of.lost.to_host is None  # 1 TFLOPS of the host's processor are no match
    assert all(row.host_s is not None and row.in_memory_s < row.host_s for row in of.times)
    falls = np.arange(MOST_TOKENS, 0, -1.0)
    assert _lost(falls, np.full(MOST_TOKENS, 0.5)) == 1
    assert _lost(falls, falls) is None
    assert _lost(np.array([1.0, 3.0, 1.0, 3.0, 3.0]), np.full(5, 2.0)) == 4


def test_a_host_that_is_not_known_is_left_out() -> None:
    config = SimulationConfig(machine="ST-MoE-accelerator", link_gb_per_s=10, in_memory=InMemory(where="host"))
    of = expert_times("gpt-oss-20b", config, tokens=(1,))
    assert (of.times[0].host_s, of.lost.to_host) == (None, None)
    assert of.times[0].fetched_s == of.times[0].host_fetched_s


def test_adders_in_the_stacks_let_memory_keep_up_longer() -> None:
    plain, added = times_of(), times_of(partial_sums="stack")
    assert plain.lost.to_fetched is not None
    assert added.lost.to_fetched is not None
    assert added.lost.to_fetched > plain.lost.to_fetched
