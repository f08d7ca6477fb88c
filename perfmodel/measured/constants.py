"""What is known of a measured machine, for one way of running a model: numbers alone.

Times of what the host launches are by the host's clock where the program launches it piece by piece (the larger of
launching and running), so that a machine that is bound by its launches is predicted as one.
"""

from dataclasses import dataclass

from perfmodel.measured.curves import CopyLine, Curve, Grid


@dataclass(frozen=True, kw_only=True)
class LayerConstants:
    """One layer beside its routed experts.

    Attributes:
        fixed_s: from the sum of the experts of the layer before to the choice of its own (what follows experts, norms,
            attention, router), by the step's tokens and by the rows of the cache that are read.
        shared_s: shared experts, by the step's tokens; ``None`` where there are none.
    """

    fixed_s: Grid
    shared_s: Curve | None


@dataclass(frozen=True, kw_only=True)
class HostConstants:
    """The host's processor, where it computes experts.

    Attributes:
        expert_s: one expert, by its tokens, while the link is idle.
        while_copying: times as long it takes while the link moves, at least 1.
        before_s, after_s: from the gate until it has its inputs, and from its end until the device has the result.
    """

    expert_s: Curve
    while_copying: float
    before_s: float
    after_s: float


@dataclass(frozen=True, kw_only=True)
class MeasuredConstants:
    """See the module's description.

    Attributes:
        model: whose sizes.
        expert_bytes: of one routed expert.
        chunk_bytes: a transfer is queued in such pieces.
        copy: to the device, one of many that are queued after each other (so its latency is what one adds to the next).
        throttle_bytes_per_s: a link made slower: bytes pass no faster; ``None``: nothing.
        expert_s: one routed expert on the device, by its tokens.
        expert_launch_s: what launching one takes at most.
        layers: one for each layer of the trace.
        end_s: from the last layer to the next tokens' ids, by the step's tokens.
        buckets: rows of a cache that a step may read, ascending: the least that hold its longest sequence.
        gate_s: from the end of the output matrix until the host knows the next tokens, by ids.
        runtime_s: what the runtime takes of the host for the experts of a layer where they take no time themselves, by
            the step's tokens, which choose the same experts: the ids' way to the host, the decision without what is
            known ahead, and the sum of the outputs.
        runtime_expert_s: more for each further expert that the layer needs.
        foresight_s: what the host takes for a layer more, to ask and tell what is known ahead.
        begin_s: what it takes for that before the first layer of a step; 0 where nothing is foreseen there.
        host: ``None``: it is not known, and cannot compute.
    """

    model: str
    expert_bytes: int
    chunk_bytes: int
    copy: CopyLine
    throttle_bytes_per_s: float | None
    expert_s: Curve
    expert_launch_s: float
    layers: tuple[LayerConstants, ...]
    end_s: Curve
    buckets: tuple[int, ...]
    gate_s: Curve
    runtime_s: Curve
    runtime_expert_s: float
    foresight_s: float
    begin_s: float
    host: HostConstants | None
