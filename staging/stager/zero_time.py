"""The compiled stager over a stream of events where a transfer takes no time: hit rates.

At each event the layer's values are set, its experts demanded, granted and arrived, and the layer released, with as
many spare places as a layer has experts. Chances, prices and the order of the queue play no part then.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from staging.stager.compiled import commands
from staging.stager.compiled.directory import set_value
from staging.stager.compiled.state import COMMAND, State, empty_state
from staging.stager.limits import StagerLimits, StagerSettings
from traces.compiled import njit


@dataclass
class ZeroTimeStager:
    """A stager that a stream of events runs through, and lives on from stream to stream.

    Attributes:
        state: of the compiled stager.
    """

    state: State

    @classmethod
    def empty(cls, layers: int, experts: int, shares: tuple[int, ...], *, by_recency: bool) -> "ZeroTimeStager":
        """Nothing is resident, and all values are 0; ``shares`` and ``by_recency`` as in ``StagerSettings``.

        Raises:
            ForestageError: for another number of shares, or one below 0.
        """
        limits = StagerLimits(
            layers=layers, experts=experts, places=max(0, sum(shares)), spare=experts, queue_depth=experts,
            event_experts=experts, value_bits=32, stamp_bits=48,
        )  # fmt: skip
        return cls(empty_state(limits, StagerSettings(shares=shares, by_recency=by_recency), record_actions=False))

    @property
    def resident(self) -> NDArray[np.bool_]:
        """Which are ``[layers, experts]``: where no transfer takes time, all that hold a place."""
        return (self.state.keys["place"] >= 0).reshape(len(self.state.layers), -1)

    def run(
        self,
        keys: NDArray[np.int32],
        offsets: NDArray[np.int64],
        layer_of: NDArray[np.int32],
        hit: NDArray[np.bool_],
        *,
        use_values: NDArray[np.int32] | None = None,
        rows: NDArray[np.int32] | None = None,
        ahead_rows: NDArray[np.int32] | None = None,
        lookahead: int = 0,
    ) -> None:
        """Run events ``[n]`` and mark in ``hit`` the uses that were resident.

        Args:
            keys, hit: of all uses of the trace; ``offsets [n + 1]`` index them.
            layer_of: i32 ``[n]``.
            use_values: i32 ``[uses]``, the value of each used expert from that use on.
            rows: i32 ``[n, experts]``, the values of the event's own layer, known once its gate is.
            ahead_rows: i32 ``[n, experts]``, at the same moment those of the layer ``lookahead`` above, where there is
                one.

        Raises:
            ValueError: for an event that names an expert twice, or one of another layer.
        """
        experts = int(self.state.setup["experts"])
        no_rows = np.empty((0, experts), np.int32)
        _run(
            self.state, keys, offsets, layer_of, hit,
            np.empty(0, np.int32) if use_values is None else use_values,
            no_rows if rows is None else rows, no_rows if ahead_rows is None else ahead_rows, lookahead,
            np.empty(experts, np.int64),
        )  # fmt: skip

    def access(self, layer: int, keys: NDArray[np.int32]) -> NDArray[np.bool_]:
        """One event with the values as they are: which of ``keys`` were resident before it."""
        hit = np.zeros(len(keys), np.bool_)
        self.run(keys, np.array((0, len(keys)), np.int64), np.array((layer,), np.int32), hit)
        return hit


@njit(**COMMAND)
def _run(
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
    """As ``ZeroTimeStager.run``, with room ``[experts]`` for the ids of an event."""
    experts = state.setup.experts
    for event in range(len(layer_of)):
        layer, begin, end = layer_of[event], offsets[event], offsets[event + 1]
        if end - begin > experts:
            raise ValueError("an event names more experts than a layer has")
        if len(rows):
            commands.set_values(state, layer, rows[event])
        if len(ahead_rows) and layer + lookahead < state.setup.layers:
            commands.set_values(state, layer + lookahead, ahead_rows[event])
        for use in range(begin, end):
            ids[use - begin] = keys[use] - layer * experts
            hit[use] = commands.is_resident(state, layer, ids[use - begin])
        needed = ids[: end - begin]
        commands.demand(state, layer, needed)
        if len(use_values):
            for use in range(begin, end):
                set_value(state, keys[use], use_values[use])
        commands.transfer_all(state)
        commands.release(state, layer, needed)
