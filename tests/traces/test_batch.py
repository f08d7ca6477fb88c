"""Continuous batching against hand-made schedules and a plain simulation; the file that holds the schedule."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.numpy import save_file

from catalog.errors import ForestageError
from tests.routing import trace_of
from tests.traces.trace_samples import make_trace, traces
from traces import PREFILL, RoutingTrace, scattered
from traces import batch as module
from traces.batch import BatchConfig, check_schedule, distinct_experts_by_step, make_schedule
from traces.batch_file import load_schedule, save_batched

FUZZ = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])

configs = st.builds(
    BatchConfig,
    slots=st.integers(1, 4),
    arrivals_per_step=st.sampled_from([None, 0.05, 0.5, 3.0]),
    prefill_chunk=st.sampled_from([None, 1, 2]),
    order=st.sampled_from(["trace", "shuffled"]),
    seed=st.integers(0, 5),
)


def steps_of(trace: RoutingTrace, **settings_: Any) -> list[list[tuple[int, int]]]:
    """Each step as (slot, token) pairs."""
    schedule = make_schedule(trace, BatchConfig(**settings_))
    parts = [schedule.step(index) for index in range(schedule.steps)]
    return [list(zip(part.slot.tolist(), part.token.tolist(), strict=True)) for part in parts]


def test_a_schedule_by_hand() -> None:
    # Sequences of 2, 4 and 2 tokens, the first of each prefill, in two slots.
    trace = trace_of(np.zeros((8, 1, 1)), experts=2, lengths=[2, 4, 2], prompt=1)
    assert steps_of(trace, slots=2) == [[(0, 0), (1, 2)], [(0, 1), (1, 3)], [(0, 6), (1, 4)], [(0, 7), (1, 5)]]
    assert steps_of(trace, slots=1) == [[(0, token)] for token in range(8)]


def test_prompts_run_whole_or_in_chunks() -> None:
    trace = trace_of(np.zeros((7, 1, 1)), experts=2, lengths=[7], prompt=5)
    assert steps_of(trace, slots=1) == [[(0, t) for t in range(5)], [(0, 5)], [(0, 6)]]
    assert steps_of(trace, slots=1, prefill_chunk=2) == [
        [(0, 0), (0, 1)], [(0, 2), (0, 3)], [(0, 4)], [(0, 5)], [(0, 6)],
    ]  # fmt: skip


def test_a_second_prompt_within_a_sequence_is_a_pass_of_its_own() -> None:
    trace = trace_of(np.zeros((6, 1, 1)), experts=2, phase=[0, 0, 1, 0, 0, 1])
    assert [[token for _, token in step] for step in steps_of(trace, slots=1)] == [[0, 1], [2], [3, 4], [5]]


def plain_simulation(trace: RoutingTrace, config: BatchConfig, arrival: list[int], order: list[int]) -> dict[int, int]:
    """Token → tick, tick by tick: who waits takes a free slot, every busy slot goes on."""
    waiting, running = list(order), dict[int, list[int]]()
    ticks: dict[int, int] = {}
    tick = 0
    while waiting or running:
        while waiting and arrival[waiting[0]] <= tick and len(running) < config.slots:
            sequence = waiting.pop(0)
            part = trace.sequence_slice(sequence)
            running[sequence] = list(range(part.start, part.stop))
        for sequence, left in list(running.items()):
            taken = [left.pop(0)]
            while (
                trace.phase[taken[0]] == PREFILL
                and left
                and trace.phase[left[0]] == PREFILL
                and (config.prefill_chunk is None or len(taken) < config.prefill_chunk)
            ):
                taken.append(left.pop(0))
            ticks |= dict.fromkeys(taken, tick)
            if not left:
                del running[sequence]
        tick += 1
    return ticks


@FUZZ
@given(trace=traces(), config=configs, data=st.data())
def test_schedules_agree_with_a_plain_simulation(trace: RoutingTrace, config: BatchConfig, data: st.DataObject) -> None:
    phases = data.draw(st.lists(st.integers(0, 1), min_size=trace.tokens, max_size=trace.tokens))
    trace = replace(trace, phase=np.array(phases, np.uint8), content="unchecked")
    schedule = make_schedule(trace, config)
    check_schedule(schedule, "schedule")
    arrival = schedule.arrival.tolist()
    order = module._arrivals(trace.sequences, config)[1].tolist()
    assert sorted(order) == list(range(trace.sequences))
    assert [arrival[s] for s in order] == sorted(arrival)
    ticks = plain_simulation(trace, config, arrival, order)
    found = schedule.clock[schedule.step_of_token()]
    assert found.tolist() == [ticks[token] for token in range(trace.tokens)]
    waited = [ticks[int(start)] - a for start, a in zip(trace.sequence_offsets[:-1], arrival, strict=True)]
    assert schedule.waiting().tolist() == waited
    for index in range(schedule.steps):
        step = schedule.step(index)
        assert schedule.busy_slots()[index] == len(set(step.slot.tolist())) <= config.slots
        assert step.sequence.tolist() == trace.sequence_index()[step.token].tolist()
        assert schedule.prefill_tokens(trace)[index] == int((trace.phase[step.token] == PREFILL).sum())


def test_arrivals_are_poisson() -> None:
    config = BatchConfig(slots=1, arrivals_per_step=0.25, seed=3)
    arrival, _ = module._arrivals(4000, config)
    gaps = np.diff(arrival)
    assert gaps.mean() == pytest.approx(4, rel=0.05)
    assert gaps.std() == pytest.approx(4, rel=0.1)
    again, _ = module._arrivals(4000, config.model_copy(update={"seed": 4}))
    assert not np.array_equal(arrival, again)


@FUZZ
@given(trace=traces(), config=configs, chunk=st.sampled_from([1, 4, 1000]))
def test_distinct_experts_of_every_step(trace: RoutingTrace, config: BatchConfig, chunk: int) -> None:
    schedule = make_schedule(trace, config)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scattered, "CHUNK_TOKENS", chunk)
        counts = distinct_experts_by_step(trace, schedule)
    for index in range(schedule.steps):
        for layer in range(trace.layers):
            ids = set(trace.expert_ids[schedule.step(index).token, layer].ravel().tolist())
            assert counts[index, layer] == len({i for i in ids if i < trace.experts})


@FUZZ
@given(trace=traces(), config=configs)
def test_the_file_gives_both_back(trace: RoutingTrace, config: BatchConfig, tmp_path: Path) -> None:
    path = tmp_path / "batched.safetensors"
    schedule = make_schedule(trace, config)
    save_batched(path, trace, schedule)
    assert RoutingTrace.load(path).equals(trace)
    loaded = load_schedule(path)
    assert loaded is not None
    assert loaded.config == config
    for name in ("step_offsets", "clock", "token", "slot", "arrival"):
        assert np.array_equal(getattr(loaded, name), getattr(schedule, name))


def test_the_header_says_how_the_batch_was_made(tmp_path: Path) -> None:
    trace, path = make_trace(), tmp_path / "batched.safetensors"
    save_batched(path, trace, make_schedule(trace, BatchConfig(slots=2)))
    with safe_open(path, "numpy") as file:
        metadata = file.metadata()
    assert metadata["version"] == "2"  # what reads version 1 alone refuses it
    assert json.loads(metadata["batch"])["made_by"] == "interleaving single requests"


def test_a_trace_without_a_schedule(tmp_path: Path) -> None:
    make_trace().save(tmp_path / "plain.safetensors")
    assert load_schedule(tmp_path / "plain.safetensors") is None


def _put(name: str, index: int, value: int) -> Any:
    def change(tensors: dict[str, Any], metadata: dict[str, str]) -> None:
        tensors[name][index] = value

    return change


FAULTS: dict[str, tuple[Any, str]] = {
    "token twice": (_put("batch_token", 3, 0), r"batch_token: token \d+ is not in it"),
    "token beyond": (_put("batch_token", 3, 99), r"batch_token: token \d+ is not in it"),
    "slot beyond": (_put("batch_slot", 3, 2), r"batch_slot: must be below 2"),
    "slot changed": (_put("batch_slot", 0, 1), r"(changes its slot|must ascend within a step)"),
    "slot shared": (
        lambda t, m: t.update(batch_slot=t["batch_slot"] * 0),
        r"batch_slot\[1\]: slots must ascend within a step and serve one sequence each",
    ),
    "order": (
        lambda t, m: t.update(batch_token=np.ascontiguousarray(t["batch_token"][::-1])),
        r"batch_token: token \d+ is out of order|batch_arrival",
    ),
    "offsets": (_put("batch_step_offsets", 1, 0), r"batch_step_offsets: must ascend from 0 to 12"),
    "clock": (_put("batch_clock", 1, 0), r"batch_clock: must ascend"),
    "arrival": (_put("batch_arrival", 0, 5), r"batch_arrival: must be one tick a sequence, none after"),
    "dtype": (lambda t, m: t.update(batch_slot=t["batch_slot"].astype(np.uint32)), r"batch_slot: must be uint16"),
    "shape": (lambda t, m: t.update(batch_token=t["batch_token"][:-1]), r"must name 12 tokens"),
    "missing": (lambda t, m: t.pop("batch_clock"), r"batch_clock: missing tensor"),
    "config": (
        lambda t, m: m.update(batch='{"config": {"slotz": 2}}'),
        r"unknown key 'slotz'; the nearest known key is 'slots'",
    ),
    "document": (lambda t, m: m.update(batch="[]"), r"'batch' is not the JSON of a batch"),
    "config text": (lambda t, m: m.update(batch='{"config": 3}'), r"'batch' holds no config"),
    "version 1": (lambda t, m: m.update(version="1"), r"unknown entry 'batch'"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_faulty_schedule_is_refused(fault: str, tmp_path: Path) -> None:
    trace, path = make_trace(), tmp_path / "batched.safetensors"
    save_batched(path, trace, make_schedule(trace, BatchConfig(slots=2)))
    with safe_open(path, "numpy") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
        metadata = dict(file.metadata())
    del metadata["checksums"]
    change, message = FAULTS[fault]
    change(tensors, metadata)
    save_file(tensors, path, metadata)
    with pytest.raises(ForestageError, match=rf"batched\.safetensors: .*({message})") as caught:
        load_schedule(path)
    assert "\n" not in str(caught.value)


def test_damage_is_seen_by_the_checksums(tmp_path: Path) -> None:
    trace, path = make_trace(), tmp_path / "batched.safetensors"
    save_batched(path, trace, make_schedule(trace, BatchConfig(slots=2)))
    path.write_bytes(path.read_bytes().replace(b'\\"order\\": \\"trace\\"', b'\\"order\\": \\"tracf\\"'))
    for read in (load_schedule, RoutingTrace.load):
        with pytest.raises(ForestageError, match="batch: damaged"):
            read(path)


def test_a_schedule_of_another_trace_is_refused(tmp_path: Path) -> None:
    schedule = make_schedule(make_trace(), BatchConfig(slots=2))
    with pytest.raises(ForestageError, match="made for another trace"):
        save_batched(tmp_path / "t.safetensors", make_trace(lengths=(3, 9)), schedule)
    with pytest.raises(ForestageError, match="step 99: the schedule has steps 0 to"):
        schedule.step(99)
