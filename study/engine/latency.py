"""How long the prefetch engine's net takes, by the formula that the replay holds against the hardware."""

from collections.abc import Mapping

from predictor.row_network.cycles import NetSchedule
from predictor.row_network.program import head_program
from predictor.row_network.twin import RowNetwork

HEADS = ("next-layer", "next-use")


def net_latency(networks: Mapping[str, RowNetwork], *, distance: int, lanes: int) -> dict[str, int]:
    """The most cycles of any gate but layer 0's (which may wait for its text), from the net's taking it.

    Args:
        networks: by head; at least one of ``HEADS``.
        distance: layers ahead that next-layer is asked for.
        lanes: of the net.

    Returns:
        ``prefetch`` and ``values``: until they are offered; 0: never. ``summed``: until every sum is written. ``next``:
        until the next event is taken.
    """
    programs = []
    for head in HEADS:
        network = networks.get(head)
        programs.append(
            None
            if network is None
            else head_program(
                network.tables,
                network.config,
                top_k=network.top_k,
                ranked=network.ranked,
                distance=distance if head == "next-layer" else 0,
                lanes=lanes,
                origin=head,
            )
        )
    schedule = NetSchedule(*programs, lanes=lanes)
    layers = next(iter(networks.values())).layers
    gates = [schedule.gate(layer, known=True, held=True, closes=True) for layer in range(1, layers)]
    return {
        "prefetch": max((cycle for gate in gates for cycle in gate.prefetches), default=0),
        "values": max(gate.values for gate in gates),
        "summed": max(gate.summed for gate in gates),
        "next": max(gate.next for gate in gates),
    }
