"""The compiled stager over a stream of events where a transfer takes no time: hit rates.

At each event the layer's values are set, its experts demanded, granted and arrived, and the layer released, with as
many spare places as a layer has experts. Chances, prices and the queue play no part then.
"""

import numpy as np
from numpy.typing import NDArray

from staging.stager.compiled import commands
from staging.stager.compiled.directory import set_value
from staging.stager.compiled.state import COMMAND, State
from traces.compiled import njit


@njit(**COMMAND)
def run(
    state: State,
    keys: NDArray[np.int32],
    offsets: NDArray[np.int64],
    layer_of: NDArray[np.int32],
    hit: NDArray[np.bool_],
    use_values: NDArray[np.int32],
    rows: NDArray[np.int32],
    ahead_rows: NDArray[np.int32],
    lookahead: int,
    ids: NDArray[np.int64],
) -> None:
    """Run events ``[n]``; arguments as ``ZeroTimeStager.run``, and room ``[experts]`` for the ids of an event."""
    experts = state.setup.experts
    for event in range(len(layer_of)):
        layer, begin, end = layer_of[event], offsets[event], offsets[event + 1]
        if len(rows):
            commands.set_values(state, layer, rows[event])
        if len(ahead_rows) and layer + lookahead < state.setup.layers:
            commands.set_values(state, layer + lookahead, ahead_rows[event])
        for use in range(begin, end):
            ids[use - begin] = keys[use] - layer * experts
            hit[use] = commands.is_resident(state, layer, ids[use - begin])
            if len(use_values):
                set_value(state, keys[use], use_values[use])
        needed = ids[: end - begin]
        commands.demand(state, layer, needed)
        commands.transfer_all(state)
        commands.release(state, layer, needed)
