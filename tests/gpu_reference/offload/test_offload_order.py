"""Whatever order the device's queues run in, outputs have the resident run's bits; a missing wait would show."""

import numpy as np
import pytest
import torch

from gpu_reference.experts.compute import reference_output
from gpu_reference.offload.host_compute import HostWorker
from gpu_reference.offload.stagers import TwinStager
from staging.results import Scope
from tests.gpu_reference.offload.fake_device import MODES, FakeDevice, Mode
from tests.gpu_reference.offload.scenes import (
    COMPUTING,
    EXPERTS,
    FETCHING,
    LAYERS,
    LAYOUT,
    host_experts,
    kernel,
    offloaded,
    outputs,
    resident_outputs,
    scene_of,
)


def differing(found: list[torch.Tensor], expected: list[torch.Tensor]) -> list[int]:
    return [at for at, (one, other) in enumerate(zip(found, expected, strict=True)) if not torch.equal(one, other)]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", FETCHING)
def test_outputs_are_the_resident_runs_in_any_legal_order(name: str, mode: Mode) -> None:
    host = host_experts()
    sizes: list[tuple[int, Scope]] = [(0, "global"), (4, "global"), (9, "layer")]
    for seed, (places, scope) in enumerate(sizes):
        scene = scene_of(seed, 1 + seed)
        device = FakeDevice(seed, mode)
        experts = offloaded(scene, scene.plan(FETCHING[name], places, scope), host, device, device)
        assert not differing(outputs(scene, experts, device.drain), resident_outputs(scene))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", ["LRU", "all"])
@pytest.mark.parametrize(("places", "spare"), [(0, 0), (3, 0), (2, 2)])
def test_what_has_no_place_is_computed_as_it_comes(name: str, mode: Mode, places: int, spare: int) -> None:
    host = host_experts()
    scene = scene_of(1, 2)
    device = FakeDevice(places, mode)
    experts = offloaded(scene, scene.plan(FETCHING[name], places, spare=spare), host, device, device)
    assert not differing(outputs(scene, experts, device.drain), resident_outputs(scene))
    assert experts.stager.counters.passed > 0


@pytest.mark.parametrize("name", ["LRU", "all"])
def test_the_streaming_stager_and_the_compiled_one_give_the_same_run(name: str) -> None:
    host, scene = host_experts(), scene_of(5, 2)
    runs = []
    for options in ({}, {"make_stager": TwinStager}):
        device = FakeDevice(5, "random")
        experts = offloaded(scene, scene.plan(FETCHING[name], 6), host, device, device, **options)
        outputs(scene, experts, device.drain)
        runs.append((vars(experts.total.counts), experts.total.moved_bytes))
    assert runs[0] == runs[1]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", COMPUTING)
def test_what_the_host_computes_is_added_in_its_place(name: str, mode: Mode) -> None:
    host, scene = host_experts(), scene_of(7, 2)
    worker = HostWorker(kernel())
    device = FakeDevice(7, mode)
    experts = offloaded(scene, scene.plan(COMPUTING[name], 6), host, device, device, worker=worker)
    # The host's kernel is the device's here, so even these have the same bits.
    assert not differing(outputs(scene, experts, device.drain), resident_outputs(scene))
    counts = experts.total.counts
    assert counts.computed > 0
    assert counts.hits > 0
    if name == "static":
        assert counts.fetched == counts.evicted == experts.total.moved_bytes == 0
    else:
        assert counts.ahead > 0
    worker.close()


def test_the_resident_run_adds_each_tokens_experts_with_its_weights() -> None:
    host, scene = host_experts(), scene_of(2, 4)
    found = iter(resident_outputs(scene))
    for ids, x, weights in zip(scene.ids, scene.xs, scene.weights, strict=True):
        for layer in range(LAYERS):
            expected = np.zeros(x.shape)
            for token, chosen in enumerate(ids[layer]):
                for expert, weight in zip(chosen, weights[layer, token], strict=True):
                    block = host.blocks[layer * EXPERTS + int(expert)]
                    expected[token] += float(weight) * reference_output(LAYOUT, block, x[token : token + 1])[0]
            np.testing.assert_allclose(next(found).numpy(), expected, rtol=1e-4, atol=1e-5)


def test_a_device_that_never_had_to_wait_is_not_said_to_have_stalled() -> None:
    host, scene = host_experts(), scene_of(3)
    device = FakeDevice(3, "random")
    experts = offloaded(scene, scene.plan(FETCHING["LRU"], LAYERS * EXPERTS), host, device, device)
    outputs(scene, experts, device.drain)
    assert experts.total.stall_s == 0
    assert experts.total.hit_rate == 1
