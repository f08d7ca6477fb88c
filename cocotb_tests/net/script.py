"""Events of the net, what the memory of the text tells for them, and what the twins of its heads answer."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from predictor.row_network import kernels
from predictor.row_network.cycles import Item, NetCycles, NetSchedule
from predictor.row_network.kernels import UNKNOWN
from predictor.row_network.merging import merged_chance
from predictor.row_network.program import HeadProgram
from predictor.row_network.sources import LONGEST, MATCHED, sources
from predictor.row_network.twin import RowNetwork
from rtl.prefetch.net.layouts import ItemKind, NetEventKind
from traces import RoutingTrace


@dataclass
class Told:
    """One event.

    Attributes:
        event: fields of the net's event.
        items: fields of what the text tells for it, the END included.
        held: of a gate: its choice was recorded now or before.
        scores: (head, slot, target, scores [answers], chances [answers]) in the order of the net.
        prefetches: (layer, deadline, [(expert, chance), …]).
        values: of each expert; ``None``: they are not told.
    """

    event: dict[str, Any]
    items: list[dict[str, Any]] = field(default_factory=list)
    held: bool = False
    scores: list[tuple[int, int, int, NDArray[np.int32], NDArray[np.uint16]]] = field(default_factory=list)
    prefetches: list[tuple[int, int, list[tuple[int, int]]]] = field(default_factory=list)
    values: list[int] | None = None


class SlotState:
    """One slot of the batch: both heads' twins, and the memory of the text, which serves both."""

    def __init__(self, networks: list[RowNetwork | None]) -> None:
        self.networks = networks
        self.twins = [None if n is None else _copy(n) for n in networks]
        given = [network for network in networks if network is not None]
        self.text_of = next((n for n in given if len(n.rules.lengths)), given[0])
        afters = {
            after
            for network in given
            for source in sources(network.config)
            if source.age == MATCHED and source.index == LONGEST
            for after in range(source.first, source.last + 1)
        }
        self.afters = sorted(afters)
        self.begin_sequence()

    def begin_sequence(self) -> None:
        """Forget everything."""
        for twin in self.twins:
            if twin is not None:
                twin.start_sequence()
        state = self.text_of.new_state(1)
        kernels.start_sequence(state)
        self.tokens, self.keys, self.places = state.tokens, state.keys, state.places
        self.log: list[list[NDArray[np.int64] | None]] = []
        self.identities: list[int] = []
        self.held = [False] * self.text_of.layers

    def records(self, token: int) -> list[dict[str, Any]]:
        """What the text tells where ``token`` is this token's identity."""
        lengths = self.text_of.rules.lengths
        if not len(lengths):
            return []
        named = np.empty(len(lengths) + 1, np.int64)
        position = len(self.log) - 1
        kernels.look_up(lengths, self.tokens, self.keys, self.places, token, position, named)
        wanted = [(table, int(named[table])) for table in range(len(lengths)) if named[table] >= 0]
        if named[-1] >= 0:
            wanted += [(len(lengths) + after, int(named[-1]) + after) for after in self.afters]
        return [
            {"kind": ItemKind.RECORD, "index": record, "layer": layer, "experts": ids.tolist()}
            for record, earlier in wanted
            if position - self.text_of.config.log_tokens < earlier < position
            for layer, ids in enumerate(self.log[earlier])
            if ids is not None
        ]


def _copy(network: RowNetwork) -> RowNetwork:
    return RowNetwork(
        network.tables, network.config, top_k=network.top_k, ranked=network.ranked, lookahead=network.lookahead
    )


def row_bits(row: NDArray[np.int8]) -> int:
    """Bytes ``[lanes]`` as a word."""
    return int.from_bytes(np.ascontiguousarray(row, np.int8).tobytes(), "little")


class NetScript:
    """Events of several traces that run together, a slot each: TOKENs of all, then every layer's GATEs.

    Args:
        networks: of next-layer and next-use; ``None``: the head is not asked.
        programs: theirs.
        traces: of one model.
        wanted: experts of a PREFETCH, at most.
        threshold: their smallest chance.
        tokens: of each trace, at most.

    Attributes:
        told: every event, in order.
        by_routing: layer 0's gate waits for the text.
    """

    def __init__(
        self,
        networks: list[RowNetwork | None],
        programs: list[HeadProgram | None],
        traces: list[RoutingTrace],
        *,
        wanted: int,
        threshold: int,
        tokens: int | None = None,
    ) -> None:
        self.networks, self.programs = networks, programs
        self.wanted, self.threshold = wanted, threshold
        self.told: list[Told] = []
        self.slots = [SlotState(networks) for _ in traces]
        given = [network for network in networks if network is not None]
        self.by_routing = given[0].rules.by_routing and bool(len(self.slots[0].text_of.rules.lengths))
        self.merged: dict[tuple[int, int], NDArray[np.int64]] = {}
        self.step = 0
        starts = [set(np.asarray(trace.sequence_offsets[:-1]).tolist()) for trace in traces]
        lengths = [trace.tokens if tokens is None else min(tokens, trace.tokens) for trace in traces]
        for token in range(max(lengths)):
            running = [slot for slot, length in enumerate(lengths) if token < length]
            self.step += traces[0].layers
            for slot in running:
                self._token(slot, traces[slot], token, token in starts[slot], running)
            for layer in range(traces[0].layers):
                for slot in running:
                    self._gate(slot, traces[slot], token, layer, running)

    def cycles_of(self, schedule: NetSchedule, told: Told, clocks: list[int]) -> NetCycles:
        """The cycles of an event whose items are offered in ``clocks`` at the earliest."""
        items = []
        for item, offered in zip(told.items, clocks, strict=True):
            if item["kind"] == ItemKind.RECORD:
                items.append(Item(offered, item["index"], item["layer"]))
            elif item["kind"] == ItemKind.IDENTITY:
                items.append(Item(offered, None, item["layer"], item["word"]))
            else:
                items.append(Item(offered))
        event = told.event
        if event["kind"] == NetEventKind.TOKEN:
            return schedule.token(starts=bool(event["starts_sequence"]), closes=bool(event["last"]), text=items)
        return schedule.gate(
            event["layer"], known=bool(event["known"]), held=told.held, closes=bool(event["last"]), text=items or None
        )

    def _token(self, slot: int, trace: RoutingTrace, token: int, starts: bool, running: list[int]) -> None:
        sequence = self.slots[slot]
        told = Told(
            {
                "kind": NetEventKind.TOKEN, "slot": slot, "starts_sequence": int(starts),
                "first": int(slot == running[0]), "last": int(slot == running[-1]), "step": self.step,
            }
        )  # fmt: skip
        self.told.append(told)
        if starts:
            sequence.begin_sequence()
        identity = None if trace.token_hash is None else int(trace.token_hash[token])
        sequence.log.append([None] * trace.layers)
        sequence.identities.append(UNKNOWN if identity is None else identity)
        for twin in sequence.twins:
            if twin is not None:
                twin.start_token(identity)
        network, program = self.networks[0], self.programs[0]
        if network is not None and program is not None:
            for age in range(min(network.config.identities, len(sequence.identities))):
                row = int(network.identity_index(np.array([sequence.identities[-1 - age]]))[0])
                if row < 0:
                    continue
                for layer in range(trace.layers):
                    padded = np.zeros(program.settings.words * program.lanes, np.int8)
                    padded[: network.config.hidden] = network.tables.identity_rows[row, age, layer]
                    told.items += [
                        {
                            "kind": ItemKind.IDENTITY, "index": age, "layer": layer, "word": word,
                            "data": row_bits(lanes),
                        }
                        for word, lanes in enumerate(padded.reshape(-1, program.lanes))
                    ]  # fmt: skip
        if not self.by_routing:
            told.items += sequence.records(sequence.identities[-1])
        told.items.append({"kind": ItemKind.END})
        if network is not None:
            for target in range(min(network.lookahead, trace.layers)):
                self._asked(told, 0, target)

    def _gate(self, slot: int, trace: RoutingTrace, token: int, layer: int, running: list[int]) -> None:
        sequence = self.slots[slot]
        known = bool(trace.recorded()[token, layer])
        ids = np.asarray(trace.expert_ids[token, layer])
        told = Told(
            {
                "kind": NetEventKind.GATE, "slot": slot, "layer": layer, "known": int(known),
                "first": int(slot == running[0]), "last": int(slot == running[-1]), "step": self.step,
                "experts": ids.tolist() if known else [0] * trace.top_k,
            }
        )  # fmt: skip
        self.told.append(told)
        if self.by_routing and layer == 0:
            told.items += sequence.records(int(kernels.routing_token(ids.astype(np.int16), known)))
            told.items.append({"kind": ItemKind.END})
        if known:
            sequence.held[layer] = True
            sequence.log[-1][layer] = ids
        told.held = sequence.held[layer]
        for twin in sequence.twins:
            if twin is not None:
                twin.observe(layer, ids if known else None)
        for head, network in enumerate(self.networks):
            if network is not None and layer + network.lookahead < trace.layers:
                self._asked(told, head, layer + network.lookahead)

    def _asked(self, told: Told, head: int, target: int) -> None:
        """What one head answers of a target."""
        slot, first, last = (told.event[name] for name in ("slot", "first", "last"))
        twin = self.slots[slot].twins[head]
        assert twin is not None
        scores = twin.scores(target)
        chances = twin.chances_of(target, scores)
        told.scores.append((head, slot, target, scores.ravel(), chances.ravel()))
        before = np.zeros(chances.size, int) if first else self.merged[head, target]
        merged = np.array([merged_chance(int(a), int(b)) for a, b in zip(before, chances.ravel(), strict=True)])
        self.merged[head, target] = merged
        if not last:
            return
        if head == 1:
            told.values = merged.reshape(-1, twin.experts).sum(axis=0).tolist()
            return
        order = sorted(range(twin.experts), key=lambda expert: (-merged[expert], expert))
        best = [(expert, int(merged[expert])) for expert in order if merged[expert] >= self.threshold]
        told.prefetches.append((target, self.step + target, best[: self.wanted]))
