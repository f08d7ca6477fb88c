"""The stager's decisions over a stream of events where a transfer takes no time: hit rates, compiled.

It stays beside the compiled stager because it is about twice as fast: there is no queue, no place and no pin to
keep where transfers take no time.

What ``twin.Stager`` does when at each event the layer's values are set, its experts demanded, granted and arrived, and
the layer released, with as many spare places as a layer has experts (tested equal to it, event by event). Chances,
prices and the queue play no part then.

Who gives way is the least of one integer a key, ``worth · 2^32 + recency``: recency is the time of the last use, or,
where it is not looked at, the larger the smaller the key. The least of each layer is remembered until that layer
changes.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from catalog.compiled import njit

_LOW_BITS = 32
_MOST_USES = 1 << _LOW_BITS
_ABSENT = np.iinfo(np.int64).max
_UNKNOWN = -1


@dataclass
class ZeroTimeStager:
    """The state that a stream of events carries on; one whose places are all free at first.

    Attributes:
        shares: i64 ``[1]``, of a group of all layers, or ``[layers]``, of each layer's own: places.
        by_recency: of equal worth the least recently used gives way; otherwise the largest key.
        worth: i32 ``[layers, experts]``.
        order: i64 ``[layers, experts]``, what residents are ordered by; ``_ABSENT`` of others.
        lowest: i32 ``[layers]``, the resident that gives way first, or ``_UNKNOWN``: to be found.
        held: i64 ``[groups]``, residents.
        uses: so far.
    """

    shares: NDArray[np.int64]
    by_recency: bool
    worth: NDArray[np.int32]
    order: NDArray[np.int64]
    lowest: NDArray[np.int32]
    held: NDArray[np.int64]
    uses: int = 0

    @classmethod
    def empty(cls, layers: int, experts: int, shares: tuple[int, ...], *, by_recency: bool) -> "ZeroTimeStager":
        """Nothing is resident, and all values are 0; ``shares`` as in ``StagerSettings``.

        Raises:
            ValueError: for another number of shares, or one below 0.
        """
        if len(shares) not in (1, layers) or min(shares) < 0:
            raise ValueError(f"shares: {shares}; give 1 or {layers}, of 0 or more")
        return cls(
            shares=np.array(shares, np.int64),
            by_recency=by_recency,
            worth=np.zeros((layers, experts), np.int32),
            order=np.full((layers, experts), _ABSENT, np.int64),
            lowest=np.full(layers, _UNKNOWN, np.int32),
            held=np.zeros(len(shares), np.int64),
        )

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
            ValueError: for more uses than recency can tell apart, 2^32.
        """
        used = check_uses(self.uses, offsets)
        _run(
            keys, offsets, layer_of, hit,
            *present(self.worth.shape[1], use_values, rows, ahead_rows), lookahead,
            self.shares, self.by_recency, self.worth, self.order, self.lowest, self.held, self.uses,
        )  # fmt: skip
        self.uses += used

    def access(self, layer: int, keys: NDArray[np.int32]) -> NDArray[np.bool_]:
        """One event with the values as they are: which of ``keys`` were resident before it."""
        hit = np.zeros(len(keys), np.bool_)
        self.run(keys, np.array((0, len(keys)), np.int64), np.array((layer,), np.int32), hit)
        return hit


def present(
    experts: int,
    use_values: NDArray[np.int32] | None,
    rows: NDArray[np.int32] | None,
    ahead_rows: NDArray[np.int32] | None,
) -> tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.int32]]:
    """The values for the compiled form, to which one that is absent is empty."""
    no_rows = np.empty((0, experts), np.int32)
    return (
        np.empty(0, np.int32) if use_values is None else use_values,
        no_rows if rows is None else rows,
        no_rows if ahead_rows is None else ahead_rows,
    )


def check_uses(before: int, offsets: NDArray[np.int64]) -> int:
    """The uses of events with these ``offsets``, after ``before`` others.

    Raises:
        ValueError: for more than recency can tell apart.
    """
    used = int(offsets[-1] - offsets[0])
    if before + used > _MOST_USES:
        raise ValueError(f"{before + used} uses: more than {_MOST_USES}; run fewer events")
    return used


@njit()
def _run(
    keys: NDArray[np.int32],
    offsets: NDArray[np.int64],
    layer_of: NDArray[np.int32],
    hit: NDArray[np.bool_],
    use_values: NDArray[np.int32],
    rows: NDArray[np.int32],
    ahead_rows: NDArray[np.int32],
    lookahead: int,
    shares: NDArray[np.int64],
    by_recency: bool,
    worth: NDArray[np.int32],
    order: NDArray[np.int64],
    lowest: NDArray[np.int32],
    held: NDArray[np.int64],
    uses: int,
) -> None:
    layers, experts = worth.shape
    apart = len(shares) > 1 or layers == 1
    first_use = offsets[0]
    for event in range(len(layer_of)):
        layer = layer_of[event]
        group, first, last = (layer, layer, layer + 1) if apart else (0, 0, layers)
        begin, end = offsets[event], offsets[event + 1]
        if len(rows):
            _set_values(layer, rows[event], worth, order, lowest)
        if len(ahead_rows) and layer + lookahead < layers:
            _set_values(layer + lookahead, ahead_rows[event], worth, order, lowest)
        # The event's experts are pinned: as long as they are absent from the order, they cannot give way.
        for use in range(begin, end):
            expert = keys[use] % experts
            if order[layer, expert] != _ABSENT:
                hit[use] = True
                order[layer, expert] = _ABSENT
                held[group] -= 1
                if lowest[layer] == expert:
                    lowest[layer] = _UNKNOWN
        _make_room(shares[group] - (end - begin), group, first, last, order, lowest, held)
        for use in range(begin, end):
            expert = keys[use] % experts
            if len(use_values):
                worth[layer, expert] = use_values[use]
            recency = uses + use - first_use if by_recency else layers * experts - 1 - keys[use]
            order[layer, expert] = (np.int64(worth[layer, expert]) << _LOW_BITS) + recency
        held[group] += end - begin
        lowest[layer] = _UNKNOWN
        _make_room(shares[group], group, first, last, order, lowest, held)


@njit()
def _set_values(
    layer: int,
    row: NDArray[np.int32],
    worth: NDArray[np.int32],
    order: NDArray[np.int64],
    lowest: NDArray[np.int32],
) -> None:
    """The values of a layer's experts; recency stays."""
    for expert in range(len(row)):
        if order[layer, expert] != _ABSENT:
            order[layer, expert] += (np.int64(row[expert]) - worth[layer, expert]) << _LOW_BITS
        worth[layer, expert] = row[expert]
    lowest[layer] = _UNKNOWN


@njit()
def _make_room(
    room: int,
    group: int,
    first: int,
    last: int,
    order: NDArray[np.int64],
    lowest: NDArray[np.int32],
    held: NDArray[np.int64],
) -> None:
    """Evict the least of the layers ``first … last − 1``, a group, until it holds at most ``room``, or nothing."""
    while held[group] > max(room, 0):
        least, of_layer = _ABSENT, first
        for layer in range(first, last):
            if lowest[layer] == _UNKNOWN:
                lowest[layer] = _least(order[layer])
            here = order[layer, lowest[layer]]
            if here < least:
                least, of_layer = here, layer
        order[of_layer, lowest[of_layer]] = _ABSENT
        lowest[of_layer] = _UNKNOWN
        held[group] -= 1


@njit()
def _least(order: NDArray[np.int64]) -> int:
    """Index of the least, of equals the first."""
    at = 0
    for index in range(1, len(order)):
        if order[index] < order[at]:
            at = index
    return at
