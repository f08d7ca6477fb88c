"""Places, host memory, statistics and workers by themselves."""

import numpy as np
import pytest
import torch

from gpu_reference.experts.layout import ExpertLayout
from gpu_reference.experts.shape import ExpertShape
from gpu_reference.files import SHIPPED_CHECKPOINT
from gpu_reference.moe_layer import read_experts
from gpu_reference.offload.blocks import ALIGNMENT, aligned_blocks
from gpu_reference.offload.copier import ThreadCopier
from gpu_reference.offload.foresight import SpeculativeForesight
from gpu_reference.offload.generate import GeneratedSequence
from gpu_reference.offload.host_compute import HostWorker
from gpu_reference.offload.host_store import HostExperts
from gpu_reference.offload.link import IN_FLIGHT, Link
from gpu_reference.offload.opened import resident_experts
from gpu_reference.offload.pinned import PinnedBuffer
from gpu_reference.offload.places import LANDING, Places, too_little_memory
from gpu_reference.offload.queues import Mark
from gpu_reference.offload.recorded import recorded_trace
from gpu_reference.offload.statistics import Statistics
from predictor.policies.counts import Counts
from predictor.row_network.integers import CERTAIN
from staging.stager.compiled.direct import DirectStager
from staging.stager.limits import StagerLimits, StagerSettings
from staging.steps import decode_steps


def test_blocks_lie_where_kernels_like_them() -> None:
    rows = aligned_blocks(5, 100, torch.device("cpu"))
    assert rows.shape == (5, 100)
    assert all(row.data_ptr() % ALIGNMENT == 0 for row in rows)
    rows[:] = torch.arange(5, dtype=torch.uint8)[:, None]
    assert rows.unique(dim=1).flatten().tolist() == [0, 1, 2, 3, 4]


def test_too_little_memory_names_the_budget_that_fits() -> None:
    error = too_little_memory(1000, 10**7, (3 * 10**9, 10 * 10**9))
    # 2.5 GB may be taken, in strides of 10,000,128 bytes.
    assert str(error) == (
        "device memory: 1000 experts (10.0 GB) do not fit, 3.0 GB are free; give a capacity of at most "
        f"{249 - LANDING} experts (2.5 GB), spare places included"
    )
    assert "at most 0 experts" in str(too_little_memory(1, 10**9, (10**8, 10**10)))


def test_a_cpu_computes_experts_where_they_are() -> None:
    layout = ExpertLayout(ExpertShape(hidden=32, intermediate=32, matrices=3, activation="swiglu"), "fp32")
    host = HostExperts.random(layout, 1, 3, seed=0, device=torch.device("cpu"))
    resident = resident_experts(host, torch.device("cpu"))
    x, ids, weights = torch.ones(1, 32), torch.tensor([[2, 0]]), torch.tensor([[0.5, 2.0]])
    before = resident.run(0, x, ids, weights)
    host.blocks[2].copy_(host.blocks[1])  # no copy is held: what changes here is computed there
    assert not torch.equal(before, resident.run(0, x, ids, weights))


@pytest.mark.parametrize("format", ["fp32", "bf16"])
def test_the_checkpoints_experts_are_kept_as_they_are(format: str) -> None:
    host = HostExperts.of_checkpoint(SHIPPED_CHECKPOINT, format, pinned=False)  # type: ignore[arg-type]
    assert (host.layers, host.experts) == (8, 32)
    gate_up, down = read_experts(SHIPPED_CHECKPOINT, 3)
    found = host.layout.dequantised(host.blocks[3 * 32 + 7])
    torch.testing.assert_close(found[0], gate_up[7].float(), rtol=0, atol=0)
    torch.testing.assert_close(found[1], down[7].float(), rtol=0, atol=0)


def test_random_experts_differ_and_are_the_seeds() -> None:
    layout = ExpertLayout(ExpertShape(hidden=32, intermediate=32, matrices=3, activation="swiglu"), "mxfp4")
    some, same, other = (HostExperts.random(layout, 3, 40, seed=s, device=torch.device("cpu")) for s in (1, 1, 2))
    assert all(torch.equal(one, two) for one, two in zip(some.blocks, same.blocks, strict=True))
    assert not torch.equal(some.blocks[0], other.blocks[0])
    assert len({bytes(block.numpy()) for block in some.blocks}) == 120


class Late:
    """The mark of a copy that ends when it is told to."""

    done = False

    def is_reached(self) -> bool:
        """Whether it was."""
        return self.done

    def may_be_awaited(self) -> bool:
        """Yes."""
        return True


class LateCopier:
    """A copier that keeps the mark of each copy."""

    def __init__(self) -> None:
        self.marks: list[Late] = []

    def copy(self, destination: torch.Tensor, source: torch.Tensor, after: Mark | None) -> Mark:
        """Keep it."""
        self.marks.append(Late())
        return self.marks[-1]

    def close(self) -> None:
        """Nothing."""


def test_all_of_what_a_gate_waits_for_is_queued_and_little_of_anything_else() -> None:
    layout = ExpertLayout(ExpertShape(hidden=32, intermediate=32, matrices=3, activation="swiglu"), "fp32")
    device = torch.device("cpu")
    host = HostExperts.random(layout, 1, 8, seed=0, device=device)
    stager = DirectStager(
        StagerLimits(
            layers=1, experts=8, places=8, spare=8, queue_depth=8, event_experts=8, value_bits=20, scale_bits=24
        ),
        StagerSettings(shares=(8,), by_recency=True),
    )
    places, copier = Places(16, layout.nbytes, device), LateCopier()
    link = Link(stager, copier, host, places, Statistics(), chunk_bytes=layout.nbytes // 4)
    stager.prefetch(0, np.array([7]), np.array([CERTAIN]), 0)
    link.pump()
    assert len(copier.marks) == IN_FLIGHT
    stager.demand(0, [1, 2, 3])
    link.heed()
    link.demand([1, 2, 3])
    copier.marks[0].done = True
    link.pump()
    assert len(copier.marks) == IN_FLIGHT + 3 * 4  # the three, and no more of what is only expected
    assert not link.waiting


def test_a_failed_copy_is_told_to_whoever_waits_for_it() -> None:
    copier = ThreadCopier()
    mark = copier.copy(torch.empty(3), torch.empty(4), None)
    copier.close()
    with pytest.raises(RuntimeError, match="a copy from host memory failed"):
        mark.is_reached()


def test_a_failed_expert_is_told_to_whoever_waits_for_it() -> None:
    def kernel(block: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        raise ValueError("no")

    worker = HostWorker(kernel)
    result = worker.compute([(torch.empty(1), torch.empty(1, 2), torch.empty(1, 2))])
    worker.close()
    with pytest.raises(RuntimeError, match="the host could not compute an expert"):
        result.is_done()


def test_a_buffer_grows_and_is_used_again() -> None:
    buffer = PinnedBuffer(torch.int64, pinned=False)
    small = buffer.view((2, 3))
    assert buffer.view((2, 3)).data_ptr() == small.data_ptr()
    large = buffer.view((4, 5))
    assert buffer.view((2, 3)).data_ptr() == large.data_ptr()
    assert buffer.view((2, 3)).shape == (2, 3)


def test_timed_statistics_are_what_came_between() -> None:
    total, timed = Statistics(), Statistics()
    total.counts.hits, total.stall_s = 5, 1.0
    before = total.copy()
    total.counts.hits, total.stall_s, total.moved_bytes = 9, 1.5, 7
    timed.add_since(before, total)
    timed.add_since(before, total)
    assert (timed.counts.hits, timed.stall_s, timed.moved_bytes) == (8, 1.0, 14)
    assert before.counts.hits == 5


@pytest.mark.parametrize(
    ("counts", "moved_bytes", "said"),
    [
        (Counts(lookups=3, hits=1, fetched=1, demands=1), 10, "a lookup is unaccounted for"),
        (Counts(lookups=2, hits=1, fetched=1), 0, "did not come by one transfer"),
        (Counts(lookups=2, hits=1, fetched=1, demands=1, ahead=1), 10, "bytes are unaccounted for"),
    ],
)
def test_accounts_that_do_not_add_up_are_noticed(counts: Counts, moved_bytes: int, said: str) -> None:
    with pytest.raises(AssertionError, match=said):
        Statistics(counts=counts, moved_bytes=moved_bytes).check(10)


def test_speculation_names_each_expert_once_and_nothing_behind_the_last_layer() -> None:
    foresight = SpeculativeForesight(3)
    values, expected = foresight.at_gate(0, 1, [1, 2], [4, 2, 4, 7])
    (one,) = expected
    assert values is None
    assert one.layer == 2
    np.testing.assert_array_equal(one.experts, [4, 2, 7])
    assert list(foresight.at_gate(0, 2, [1, 2], [])[1]) == []


def test_a_recorded_run_is_the_trace_of_what_ran() -> None:
    """Two tokens of prompt, then two steps; the third token was drawn and not processed."""
    made = GeneratedSequence(prompt=[5, 6], added=[7, 8, 9], prefill_s=0.1, step_s=np.array([0.1, 0.1]))
    heard = [[0, 1, 2, 3], [4, 5, 6, 7], [1, 0], [3, 2], [5, 4], [7, 6]]
    trace = recorded_trace([made], heard, np.arange(10) * 10, model="m", layers=2, experts=8, top_k=2)
    assert trace.expert_ids.tolist() == [
        [[0, 1], [4, 5]], [[2, 3], [6, 7]], [[1, 0], [3, 2]], [[5, 4], [7, 6]],
    ]  # fmt: skip
    assert trace.token_hash is not None
    assert trace.token_hash.tolist() == [50, 60, 70, 80]
    steps = decode_steps(trace)
    assert steps.timed.tolist() == [False, True, True]
