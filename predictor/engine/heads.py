"""What the row networks say of events: both heads, a state of each for every slot, merged over slots that run together.

The chances of a target are merged in the order of the events (``merging.merged_chance``), from nothing at the event
that is ``first``; what they come to is said at the one that is ``last``:

* **next layer**, at a GATE of ``layer + distance``, at a TOKEN of the targets 0 … distance − 1: the ``prefetched``
  likeliest experts whose chance is ``threshold`` or more; of equals the smaller id. Where there is none, nothing is
  said.
* **next use**, at a GATE of its own layer: of each expert the sum over the questions.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from catalog.compiled import njit
from catalog.errors import ForestageError
from predictor.engine.events import Gate, Token
from predictor.engine.settings import PrefetchEngineSettings
from predictor.row_network import kernels, stream
from predictor.row_network.integers import CHANCE_SHIFT
from predictor.row_network.kernels import UNKNOWN
from predictor.row_network.merging import merged_chance
from predictor.row_network.twin import RowNetwork
from traces.handle import Handle


@dataclass(frozen=True, slots=True)
class Prefetch:
    """The experts that a coming gate is expected to choose.

    Attributes:
        layer: target.
        experts: best first.
        chances: one each, 65535 being certainty.
        deadline: of the gate.
    """

    layer: int
    experts: tuple[int, ...]
    chances: tuple[int, ...]
    deadline: int


@dataclass(frozen=True, slots=True)
class Values:
    """What each expert of a layer is worth by its next use.

    Attributes:
        layer: whose.
        values: i32 ``[experts]``.
    """

    layer: int
    values: NDArray[np.int32]


class _Head:
    """One network with a state for each slot."""

    def __init__(self, network: RowNetwork, lookahead: int, slots: int) -> None:
        self.network = network
        self.parts = [stream.stream_parts(network, [lookahead], [0]) for _ in range(slots)]
        self.handles = [Handle(parts) for parts in self.parts]
        self.merged = np.zeros((network.layers, network.config.questions * network.experts), np.uint16)

    def start_sequence(self, slot: int) -> None:
        kernels.start_sequence(self.parts[slot].state)


class Heads:
    """See the module's description.

    Args:
        settings: which heads are asked, and how.
        slots: sequences that run together.
        next_layer, next_use: the networks; one that is not asked may be left out.

    Raises:
        ForestageError: if a network is left out, or not of the model's shape, or does not serve the lookahead.
    """

    def __init__(
        self,
        settings: PrefetchEngineSettings,
        slots: int,
        next_layer: RowNetwork | None,
        next_use: RowNetwork | None,
    ) -> None:
        self._settings = settings
        self._slots = slots
        self._next_layer = self._head("next layer", next_layer, settings.distance) if settings.next_layer else None
        self._next_use = self._head("next use", next_use, 0) if settings.next_use else None
        self._experts = np.zeros(settings.prefetched, np.int64)
        self._chances = np.zeros(settings.prefetched, np.int64)
        self._unknown = np.zeros(settings.top_k, np.int16)

    def _head(self, name: str, network: RowNetwork | None, lookahead: int) -> _Head:
        settings = self._settings
        if network is None:
            raise ForestageError(f"prefetch engine: the network of '{name}' is not given; give it, or switch it off")
        mine = (settings.layers, settings.experts, settings.top_k)
        given = (network.layers, network.experts, network.top_k)
        if mine != given:
            raise ForestageError(
                f"prefetch engine: the network of '{name}' has (layers, experts, top_k) = {given}, the registers say "
                f"{mine}; give one of this model"
            )
        return _Head(network, lookahead, self._slots)

    def token(self, event: Token, base: int) -> list[Prefetch]:
        """A token begins, in a step whose layer 0 has the deadline ``base``."""
        token = UNKNOWN if event.identity is None else event.identity
        row = UNKNOWN if event.row is None else event.row
        for head in (self._next_layer, self._next_use):
            if head is not None:
                if event.starts_sequence:
                    head.start_sequence(event.slot)
                _begin(head.handles[event.slot], token, row if head.network.config.identities else UNKNOWN)
        found: list[Prefetch] = []
        if self._next_layer is not None:
            for target in range(self._settings.distance):
                found += self._prefetch(self._next_layer, event, target, base)
        return found

    def gate(self, event: Gate, base: int) -> list[Prefetch | Values]:
        """A gate has chosen; as ``token``."""
        ids = self._unknown if event.experts is None else np.array(event.experts, np.int16)
        known, layer = event.experts is not None, event.layer
        for head in (self._next_layer, self._next_use):
            if head is not None:
                _gate(head.handles[event.slot], layer, ids, known)
        found: list[Prefetch | Values] = []
        if self._next_layer is not None and layer + self._settings.distance < self._settings.layers:
            found += self._prefetch(self._next_layer, event, layer + self._settings.distance, base)
        if self._next_use is not None:
            head = self._next_use
            _merge(head.handles[event.slot], layer, 0, event.first, head.merged)
            if event.last:
                values = np.zeros(self._settings.experts, np.int32)
                _add_up(head.merged[layer], values)
                found.append(Values(layer, values))
        return found

    def _prefetch(self, head: _Head, event: Token | Gate, target: int, base: int) -> list[Prefetch]:
        _merge(head.handles[event.slot], target, self._settings.distance, event.first, head.merged)
        if not event.last:
            return []
        count = _best(head.merged[target], self._settings.threshold, self._experts, self._chances)
        if not count:
            return []
        experts, chances = self._experts[:count].tolist(), self._chances[:count].tolist()
        return [Prefetch(target, tuple(experts), tuple(chances), base + target)]

    def scores(self, slot: int, *, next_use: bool, target: int) -> NDArray[np.int32]:
        """The latest scores i32 ``[questions · experts]`` of a target, of one slot."""
        head = self._next_use if next_use else self._next_layer
        if head is None:
            raise ValueError("this head is not asked")
        return head.parts[slot].asked.scores[0, target].copy()


@njit()
def _begin(handle: Handle, token: int, row: int) -> None:
    stream.begin(handle.held, token, row)


@njit()
def _gate(handle: Handle, layer: int, ids: NDArray[np.int16], known: bool) -> None:
    stream.gate(handle.held, layer, ids, known, True)


@njit()
def _merge(handle: Handle, target: int, lookahead: int, first: bool, merged: NDArray[np.uint16]) -> None:
    """``merged[target]`` takes up the slot's chances by its latest scores."""
    parts = handle.held
    chances = parts.tables.chances[target, kernels.distance_of(target, lookahead, parts.rules.nearest)]
    scores = parts.asked.scores[0, target]
    so_far = merged[target]
    experts = len(so_far) // chances.shape[0]
    for answer in range(len(so_far)):
        chance = chances[answer // experts, scores[answer] >> CHANCE_SHIFT]
        so_far[answer] = chance if first else merged_chance(so_far[answer], chance)


@njit()
def _best(merged: NDArray[np.uint16], threshold: int, experts: Any, chances: Any) -> int:
    """The likeliest experts, as many as ``experts`` holds, of a chance of ``threshold`` or more; how many there are."""
    count, most = 0, len(experts)
    for expert in range(len(merged)):
        chance = np.int64(merged[expert])
        if chance < threshold or (count == most and chance <= chances[most - 1]):
            continue
        at = min(count, most - 1)
        while at > 0 and chances[at - 1] < chance:
            experts[at], chances[at] = experts[at - 1], chances[at - 1]
            at -= 1
        experts[at], chances[at] = expert, chance
        count = min(count + 1, most)
    return count


@njit()
def _add_up(merged: NDArray[np.uint16], values: NDArray[np.int32]) -> None:
    for answer in range(len(merged)):
        values[answer % len(values)] += np.int32(merged[answer])
