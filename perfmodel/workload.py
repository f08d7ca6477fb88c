"""What is simulated, as integers: the steps with what each layer needs, and how long kernels and transfers take."""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False, kw_only=True)
class Workload:
    """The steps of a simulation.

    Attributes:
        layers, model_experts: shape of the routing.
        experts, tokens_of, offsets: as `staging.steps.StepExperts`.
        timed: bool ``[steps]``; a step that is not timed warms the cache and takes no time.
        tokens: i64 ``[steps]``, tokens of each step.
        before_gate_ps, before_gate_compute_ps: i64 ``[steps, layers]``: the kernels between the end of the layer
            before and the gate of this one (attention and gate; before the first layer also the dense layers), and how
            long their operations alone would take.
        shared_ps, shared_compute_ps: i64 ``[steps]``: the shared experts, which run right after the gate; 0 for none.
        prefetch_engine_ps: i64 ``[steps, layers]``: how long the prefetch engine works on the event of a gate until it
            tells what it predicts.
        values_engine_ps: i64 ``[steps, layers]``: as much until it tells the values. It takes the next event when it
            has told both.
        begin_engine_ps: i64 ``[steps]``: how long it works on the beginning of a step.
    """

    layers: int
    model_experts: int
    experts: NDArray[np.int32]
    tokens_of: NDArray[np.int32]
    offsets: NDArray[np.int64]
    timed: NDArray[np.bool_]
    tokens: NDArray[np.int64]
    before_gate_ps: NDArray[np.int64]
    before_gate_compute_ps: NDArray[np.int64]
    shared_ps: NDArray[np.int64]
    shared_compute_ps: NDArray[np.int64]
    prefetch_engine_ps: NDArray[np.int64]
    values_engine_ps: NDArray[np.int64]
    begin_engine_ps: NDArray[np.int64]

    def head(self, steps: int) -> "Workload":
        """The first ``steps`` steps alone."""
        uses = slice(int(self.offsets[steps * self.layers]))
        by_step = ("timed", "tokens", "before_gate_ps", "before_gate_compute_ps", "shared_ps", "shared_compute_ps")
        of_engine = ("prefetch_engine_ps", "values_engine_ps", "begin_engine_ps")
        kept = {name: getattr(self, name)[:steps] for name in (*by_step, *of_engine)}
        return replace(
            self,
            experts=self.experts[uses],
            tokens_of=self.tokens_of[uses],
            offsets=self.offsets[: steps * self.layers + 1],
            **kept,
        )


@dataclass(frozen=True, eq=False, kw_only=True)
class Durations:
    """What an expert costs, by where it runs; index ``k`` is the number of the step's tokens that chose it.

    *Host* is what computes an expert where it lies: the host's processor, or the memory itself (`perfmodel.in_memory`).

    Attributes:
        expert_bytes: that a transfer moves.
        chunk_bytes: a transfer may be stopped at multiples of them.
        chunk_ps: i64 ``[chunks + 1]``: when so many chunks of a transfer have passed since it began, latency included;
            ``[0]`` is 0, the last the whole transfer.
        expert_ps, expert_compute_ps: i64 ``[most tokens + 1]``: an expert's kernel on the device, and its operations
            alone.
        host_work: what is read for one expert, in 10⁻⁶ bytes.
        host_free_rate, host_shared_rate: i64 ``[most tokens + 1]``: 10⁶ bytes a second at which it computes an expert
            of so many tokens while the link is idle, and while it moves.
        host_groups: groups that work at once: expert ``e`` of a layer lies in group ``e % host_groups``.
        host_before_ps, host_after_ps: from the gate until it may begin, and from its end until the device has the
            result (activations over the link, and latency); once a layer.
        host_token_ps: as much more until the result is there for each token of each expert computed.
    """

    expert_bytes: int
    chunk_bytes: int
    chunk_ps: NDArray[np.int64]
    expert_ps: NDArray[np.int64]
    expert_compute_ps: NDArray[np.int64]
    host_work: int
    host_free_rate: NDArray[np.int64]
    host_shared_rate: NDArray[np.int64]
    host_groups: int
    host_before_ps: int
    host_after_ps: int
    host_token_ps: int
