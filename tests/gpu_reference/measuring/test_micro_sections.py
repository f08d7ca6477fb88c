"""Every section gives figures of its kind on a CPU, checks results before it times, and says what means nothing."""

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from catalog import ForestageError, find_model
from gpu_reference.experts.compute import expert_kernel
from gpu_reference.experts.layout import ExpertLayout
from gpu_reference.measuring import bench as bench_module
from gpu_reference.measuring import (
    copies,
    decisions,
    experts,
    fixed_parts,
    host,
    launches,
    layer_overhead,
    networks,
    overlap,
)
from gpu_reference.measuring.background import COPY_BYTES, BackgroundCopies
from gpu_reference.measuring.bench import Bench, Figures, Skipped, WrongResultError, check_same, checked, relative_error
from gpu_reference.measuring.clock import Clock, Effort
from gpu_reference.measuring.sections import sections_of
from gpu_reference.records.micro import Micro, MicroKind

FEW = Effort(warm_runs=0, least_runs=1, most_runs=2, most_s=0.0)
MODEL = find_model("forestage-small-moe").model_copy(update={"vocabulary": 300, "layers": 3})


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Bench:
    """A bench that measures as little as it can."""
    monkeypatch.setattr(bench_module, "EFFORTS", {"quick": FEW, "full": FEW})
    monkeypatch.setattr(copies, "POOL_BYTES", {"quick": 1 << 25, "full": 1 << 25})
    monkeypatch.setattr(experts, "CACHED_BYTES", {"cpu": 1 << 20})
    return Bench(device="cpu", suite="quick", model=MODEL)


def test_experts_lie_where_no_kernel_copies_them_first(bench: Bench) -> None:
    layout = ExpertLayout.of(MODEL, "mxfp4")
    assert layout.nbytes % 256
    blocks = experts.blocks_of(bench, layout, "cpu")
    assert {block.data_ptr() % 256 for block in blocks} == {0}
    assert torch.equal(blocks, layout.random(len(blocks), seed=bench.seed))


KINDS: dict[str, tuple[Callable[[Bench], Figures], MicroKind]] = {
    "copies within": (copies.copies_within_device, MicroKind.COPY_WITHIN_DEVICE),
    "experts": (experts.device_experts, MicroKind.EXPERT),
    "combined": (experts.combined, MicroKind.COMBINE),
    "fixed": (fixed_parts.fixed_parts, MicroKind.FIXED_PART),
    "output": (fixed_parts.output_matrix, MicroKind.FIXED_PART),
    "launches": (launches.launches, MicroKind.LAUNCH),
    "gate": (launches.gate_round_trips, MicroKind.GATE_ROUND_TRIP),
    "host experts": (host.host_experts, MicroKind.HOST_EXPERT),
    "host experts while copying": (host.host_experts_while_copying, MicroKind.HOST_EXPERT_WHILE_COPYING),
    "host memory": (host.host_memory, MicroKind.HOST_MEMORY_READ),
    "decisions": (decisions.decisions, MicroKind.DECISION),
    "layer overhead": (layer_overhead.layer_overheads, MicroKind.LAYER_OVERHEAD),
    "overlap": (overlap.overlaps, MicroKind.OVERLAP),
    "on the host": (networks.host_predictions, MicroKind.PREDICTION_HOST),
    "on the device": (networks.device_predictions, MicroKind.PREDICTION_DEVICE),
}


@pytest.mark.parametrize("name", KINDS)
def test_a_section_gives_figures_of_its_kind(name: str, bench: Bench) -> None:
    section, kind = KINDS[name]
    figures = [one for one in section(bench) if isinstance(one, Micro)]
    assert figures
    assert {figure.kind for figure in figures} == {kind}
    assert all(figure.seconds.minimum > 0 and figure.settings["clock"] == "host" for figure in figures)
    assert len({repr(figure.settings) for figure in figures}) == len(figures)  # each says what alone it measured


def test_copies_are_in_both_directions(bench: Bench) -> None:
    figures = [one for one in copies.copies(bench) if isinstance(one, Micro)]
    assert {figure.kind for figure in figures} == {MicroKind.COPY_TO_DEVICE, MicroKind.COPY_FROM_DEVICE}
    assert {figure.settings["memory"] for figure in figures} == {"pageable"}
    assert {figure.bytes for figure in figures} == set(copies.sizes(bench))


@pytest.mark.parametrize(
    "section", [copies.copies_on_streams, launches.graph_replays, experts.graphed_experts, experts.grouped_experts]
)
def test_what_means_nothing_on_a_cpu_is_skipped(section: Callable[[Bench], Figures], bench: Bench) -> None:
    with pytest.raises(Skipped, match="CPU"):
        list(section(bench))


def test_grouped_experts_are_measured_in_the_full_suite(bench: Bench) -> None:
    full = Bench(device="cpu", suite="full", model=MODEL)
    figures = [one for one in experts.grouped_experts(full) if isinstance(one, Micro)]
    assert {figure.settings["experts"] for figure in figures} == {4, 8}
    assert all(figure.relative_error is not None for figure in figures)


def test_the_runtimes_own_work_is_measured_by_what_is_there(bench: Bench) -> None:
    full = Bench(device="cpu", suite="full", model=MODEL)
    found = {}
    for one in layer_overhead.layer_overheads(full):
        assert isinstance(one, Micro)
        of = one.settings
        found[of["runtime"], of["tokens"], of["needed"], of["missing"]] = one.seconds.minimum
    top_k, experts = MODEL.top_k, MODEL.experts
    of_all = [(1, top_k), (4, top_k), (4, 4 * top_k), (16, top_k), (16, min(experts, 16 * top_k))]
    assert set(found) == {
        *((runtime, *of, 0) for runtime in ("resident", "offloaded") for of in of_all),
        *(("offloaded", 1, top_k, missing) for missing in (1, top_k)),
    }


def test_an_expert_that_is_missing_unasked_is_not_timed(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    plan_of = layer_overhead.plan_of

    def fewer(policy: Any, **arguments: Any) -> Any:
        places = arguments["places"] - 2 * arguments["layers"]
        held = arguments["hottest"].reshape(arguments["layers"], -1)[:, 2:].ravel()
        return plan_of(policy, **{**arguments, "places": places, "hottest": held})

    monkeypatch.setattr(layer_overhead, "plan_of", fewer)
    with pytest.raises(WrongResultError, match=r"layer overhead: \d+ experts were missing instead of 0"):
        list(layer_overhead.layer_overheads(bench))


def test_a_wrong_sum_of_outputs_is_not_timed(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    add_up = experts.add_up

    def unsorted(outputs: Any, order: Any, weights: torch.Tensor, total: torch.Tensor) -> None:
        add_up(outputs, None, weights, total)

    monkeypatch.setattr(experts, "add_up", unsorted)
    with pytest.raises(WrongResultError, match="combine: wrong by"):
        list(experts.combined(bench))


def test_every_section_is_named_once() -> None:
    names = [plan.name for plan in sections_of(None)]
    assert len(set(names)) == len(names)


def test_a_wrong_expert_is_not_timed(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(layout: ExpertLayout, device: Any, name: str | None = None) -> Any:
        kernel = expert_kernel(layout, device, name)
        return lambda block, x: kernel(block, x) * 1.2

    monkeypatch.setattr(experts, "expert_kernel", wrong)
    monkeypatch.setattr(host, "expert_kernel", wrong)
    for section in (experts.device_experts, host.host_experts, host.host_experts_while_copying):
        with pytest.raises(WrongResultError, match=r"expert in \w+, kernel (torch|host): wrong by [12]"):
            next(section(bench))


def test_a_wrong_fixed_part_is_not_timed(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    inputs = fixed_parts.inputs
    monkeypatch.setattr(fixed_parts, "inputs", lambda *arguments: inputs(*arguments) + torch.arange(MODEL.hidden) % 2)
    copied = torch.Tensor.double
    monkeypatch.setattr(torch.Tensor, "double", lambda tensor: copied(tensor) * 0.9)
    with pytest.raises(WrongResultError, match="fixed part of layer"):
        next(fixed_parts.fixed_parts(bench))


def test_a_wrong_sum_of_memory_is_not_timed(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.Tensor, "sum", lambda tensor: 1)
    with pytest.raises(WrongResultError, match="sum of host memory by 1 threads: not NumPy's"):
        next(host.host_memory(bench))


def test_errors_are_relative_to_the_exact_result() -> None:
    exact = np.array([3.0, 4.0])
    assert relative_error(torch.tensor([3.0, 4.5]), exact) == pytest.approx(0.1)
    assert checked("this", torch.tensor([3.0, 4.5]), exact, 0.2) == pytest.approx(0.1)
    with pytest.raises(WrongResultError, match=r"this: wrong by 1\.00e-01 against float64, allowed are 5e-02"):
        checked("this", torch.tensor([3.0, 4.5]), exact, 0.05)
    with pytest.raises(WrongResultError, match="this: wrong by nan"):
        checked("this", torch.tensor([3.0, torch.nan]), exact, 0.05)


def test_a_copy_that_changes_a_byte_is_noticed() -> None:
    source = torch.arange(8, dtype=torch.uint8)
    assert check_same("copy", source.clone(), source) == 0.0
    with pytest.raises(WrongResultError, match="copy: not what was copied"):
        check_same("copy", source + (source == 7), source)


def test_layers_are_grouped_by_what_they_do() -> None:
    assert [layers[:3] for layers in fixed_parts.alike(find_model("gpt-oss-20b"))] == [(0, 2, 4), (1, 3, 5)]
    # The first layer with experts of DeepSeek-V2-Lite comes after a dense one.
    assert fixed_parts.alike(find_model("DeepSeek-V2-Lite")) == [(0,), tuple(range(1, 26))]


def test_a_clock_runs_each_piece_once_and_divides_by_their_number() -> None:
    clock = Clock("cpu", Effort(warm_runs=1, least_runs=3, most_runs=3, most_s=1.0))
    pieces: list[int] = []
    summary = clock.by_host(pieces.append, queued=4)
    assert pieces == list(range(16))
    assert summary.runs == 3
    slept = clock.by_host(lambda _: time.sleep(2e-3), queued=4)
    assert 2e-3 <= slept.minimum < 8e-3  # of one piece, not of four
    with pytest.raises(ForestageError, match="a CPU has no events"):
        clock.by_device(pieces.append, 4)


def test_copies_in_the_background_go_on_and_end(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    background = BackgroundCopies(bench)
    with background:
        pass
    assert background.times_s
    assert torch.equal(background._there, background._piece(len(background.times_s) - 1))
    assert len(background._there) == COPY_BYTES
    monkeypatch.setattr(np, "copyto", lambda *_: 1 / 0)
    with pytest.raises(RuntimeError, match="the copies in the background failed"), background:
        pass


def test_threads_double_up_to_all_processors(monkeypatch: pytest.MonkeyPatch) -> None:
    for cores, threads in ((1, (1,)), (2, (1, 2)), (12, (1, 2, 4, 8, 12)), (16, (1, 2, 4, 8, 16))):
        monkeypatch.setattr(host, "usable_cores", lambda cores=cores: cores)
        assert host.thread_counts() == threads
