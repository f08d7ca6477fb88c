"""Scaling a machine's times for replay: an expert that is short, and times in the machine's proportion.

Under simulation an expert has ``replay_expert_bytes`` in place of millions. The registers and the path of the bytes are
the same, and the bytes really move. What decides is how long a transfer takes against a layer: so the link's share of
the bandwidth is chosen, and the cycles of a layer follow from the machine's proportion of the two. Commands, nets and
latencies keep their cycles, so they weigh more than on the machine; the share is the largest with which a layer still
takes ``least_layer_cycles``, so that an engine is done with an event well before the next.
"""

from dataclasses import dataclass

from catalog.errors import ForestageError
from predictor.engine.environment import LayerTimes
from predictor.engine.limits import BEAT_BYTES
from staging.transfer.limits import FULL_SHARE


@dataclass(frozen=True, kw_only=True)
class MachineTimes:
    """Of one machine, model and precision, in any one unit.

    Attributes:
        transfer: of an expert over the link.
        before_gate: of a layer, from the end of the one before to its gate.
        expert: of one expert's computing.
    """

    transfer: float
    before_gate: float
    expert: float


@dataclass(frozen=True, kw_only=True)
class ReplayTimes:
    """In cycles.

    Attributes:
        share: of the link, for its register.
        transfer_cycles: of an expert, as far as the share decides.
        layers: of whoever runs the layers.
    """

    share: int
    transfer_cycles: int
    layers: LayerTimes


def replay_times(
    machine: MachineTimes, *, top_k: int, replay_expert_bytes: int = 1024, least_layer_cycles: int = 400
) -> ReplayTimes:
    """The machine's times in cycles of a replay; see the module's description.

    Args:
        machine: its times.
        top_k: experts that a layer computes.
        replay_expert_bytes: of an expert.
        least_layer_cycles: that a layer takes at least, where all its experts are there.

    Raises:
        ForestageError: if experts are so short that no share makes a layer long enough, or a time is not positive.
    """
    if machine.transfer <= 0 or machine.before_gate <= 0 or machine.expert < 0:
        raise ForestageError(f"replay: {machine}: give a transfer and a layer that take time")
    layer = machine.before_gate + top_k * machine.expert
    beats = -(-replay_expert_bytes // BEAT_BYTES)
    least_transfer = least_layer_cycles * machine.transfer / layer
    share = min(FULL_SHARE, int(beats * FULL_SHARE / least_transfer))
    if share < 1:
        raise ForestageError(
            f"replay_expert_bytes: {replay_expert_bytes}: a transfer would have to take {least_transfer:.0f} cycles, "
            f"and takes {beats * FULL_SHARE} at most; give {int(least_transfer / FULL_SHARE + 1) * BEAT_BYTES} or more"
        )
    cycles = beats * FULL_SHARE / share
    scale = cycles / machine.transfer
    return ReplayTimes(
        share=share,
        transfer_cycles=round(cycles),
        layers=LayerTimes(
            before_gate_cycles=max(1, round(machine.before_gate * scale)), expert_cycles=round(machine.expert * scale)
        ),
    )
