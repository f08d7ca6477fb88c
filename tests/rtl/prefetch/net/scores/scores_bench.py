"""A scores unit, loaded with two heads, beside what the kernels say of the same sums."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from predictor.measure.ranking import best_experts
from predictor.row_network import kernels
from predictor.row_network.limits import HeadLimits, NetLimits
from predictor.row_network.merging import merge_chances, values_of
from predictor.row_network.program import HeadProgram, Memory, head_program
from predictor.row_network.twin import RowNetwork
from rtl.prefetch.net.scores.layouts import NEXT_LAYER, NEXT_USE, PART_BITS, AdaptKind
from rtl.prefetch.net.scores.scores import ScoresUnit
from tests.rtl.simulate import simulate

LOADED = (Memory.OUTPUT, Memory.BIAS, Memory.OUTPUT_BIAS, Memory.CHANCES)


@dataclass(frozen=True)
class Score:
    """Score these sums ``now [hidden]`` of a head's target."""

    head: int
    slot: int
    target: int
    first: bool
    last: bool
    now: np.ndarray


@dataclass(frozen=True)
class Adapt:
    """Adapt to a gate's choice."""

    slot: int
    layer: int
    experts: list[int]


@dataclass(frozen=True)
class Clear:
    """Forget a slot."""

    slot: int


Command = Score | Adapt | Clear


def limits_for(next_layer: RowNetwork, next_use: RowNetwork, *, slots: int, lanes: int) -> NetLimits:
    """Limits that just hold two networks."""
    heads = {
        name: HeadLimits(hidden=network.config.hidden, questions=network.config.questions)
        for name, network in (("next_layer", next_layer), ("next_use", next_use))
    }
    return NetLimits(
        slots=slots, layers=next_layer.layers, experts=next_layer.experts, top_k=next_layer.top_k, lanes=lanes, **heads
    )


def program_of(network: RowNetwork, lanes: int) -> HeadProgram:
    """What is loaded."""
    return head_program(
        network.tables, network.config, top_k=network.top_k, ranked=network.ranked, distance=network.lookahead,
        lanes=lanes, origin="test",
    )  # fmt: skip


class Expected:
    """What the kernels say of the commands, in order: scores and answers."""

    def __init__(self, networks: tuple[RowNetwork, RowNetwork], slots: int, threshold: int, wanted: int) -> None:
        self._networks, self._threshold, self._wanted = networks, threshold, wanted
        self._states = [[network.new_state(1) for _ in range(slots)] for network in networks]
        for state in (state for of_head in self._states for state in of_head):
            kernels.start_sequence(state)
        layers = networks[NEXT_LAYER].layers
        self._said = np.zeros((slots, layers, networks[NEXT_LAYER].experts), np.int32)
        self._merged: dict[tuple[int, int], np.ndarray] = {}
        self.scored: list[tuple[int, int, int, int, int, int]] = []
        self.prefetch: list[tuple[int, list[int], list[int]]] = []
        self.values: list[tuple[int, list[int]]] = []

    def take(self, command: Command) -> None:
        network, states = self._networks[NEXT_LAYER], self._states[NEXT_LAYER]
        if isinstance(command, Clear):
            kernels.start_sequence(states[command.slot])
        elif isinstance(command, Adapt):
            kernels.adapt(
                network.rules, network.compiled_tables, states[command.slot], 0, command.layer, network.lookahead,
                np.array(command.experts, np.int16), True, self._said[command.slot, command.layer],
            )  # fmt: skip
        else:
            self._score(command)

    def _score(self, command: Score) -> None:
        network, state = self._networks[command.head], self._states[command.head][command.slot]
        state.now[command.target] = command.now
        scores = np.zeros(network.config.questions * network.experts, np.int32)
        kernels.score_layer(network.rules, network.compiled_tables, state, 0, command.target, network.lookahead, scores)
        shape = (network.config.questions, network.experts)
        chances = network.chances_of(command.target, scores.reshape(shape)).reshape(-1)
        at = (command.head, command.slot, command.target)
        self.scored += [(*at, *one) for one in zip(range(len(scores)), scores.tolist(), chances.tolist(), strict=True)]
        if command.head == NEXT_LAYER:
            self._said[command.slot, command.target] = scores
        key = (command.head, command.target if command.head == NEXT_LAYER else 0)
        if command.first:
            self._merged[key] = np.zeros(len(scores), np.uint16)
        merged = self._merged[key]
        merge_chances(merged, chances)
        if command.last and command.head == NEXT_LAYER:
            best = np.zeros(self._wanted, np.int16)
            best_experts(merged.astype(np.int32), self._threshold, best)
            ids = [int(expert) for expert in best if expert >= 0]
            self.prefetch.append((command.target, ids, [int(merged[expert]) for expert in ids]))
        elif command.last:
            values = np.zeros(network.experts, np.int32)
            values_of(merged, network.experts, values)
            self.values.append((command.target, values.tolist()))


@dataclass
class Log:
    """What a unit did, and in which cycles.

    Attributes:
        scored, prefetch, values: as `Expected`.
        accepted: of each command.
        shown: the last word of each score command's sums.
        answered: of each score command that ends a group, when its answer was first offered.
    """

    scored: list[tuple[int, ...]] = field(default_factory=list)
    prefetch: list[tuple[int, list[int], list[int]]] = field(default_factory=list)
    values: list[tuple[int, list[int]]] = field(default_factory=list)
    accepted: list[int] = field(default_factory=list)
    shown: dict[int, int] = field(default_factory=dict)
    answered: dict[str, list[int]] = field(default_factory=lambda: {"prefetch": [], "values": []})


def run(
    networks: tuple[RowNetwork, RowNetwork],
    commands: list[Command],
    *,
    limits: NetLimits,
    threshold: int = 1,
    wanted: int = 8,
    value_lanes: int = 4,
    waits: np.random.Generator | None = None,
    sums_after: int = 3,
    over_the_bus: bool = False,
) -> Log:
    """Fill a unit's memories (``over_the_bus``: as in use) and give it ``commands``.

    ``waits``: everything is offered and taken after random waits; ``sums_after``: clocks from a command to its sums.
    """
    dut = ScoresUnit(limits, value_lanes=value_lanes)
    programs = [program_of(network, limits.lanes) for network in networks]
    log = Log()
    ended: list[bool] = []
    clock = [0]

    def wait() -> int:
        return 0 if waits is None else int(waits.integers(0, 4) * (waits.random() < 0.5))

    async def clocks(ctx: Any) -> None:
        await ctx.changed(dut.wanted)
        async for _ in ctx.tick():
            clock[0] += 1
            if ended:
                return

    async def drive(ctx: Any) -> None:
        if over_the_bus:
            await load(ctx, dut, programs)
        else:
            fill(ctx, dut, programs)
            await ctx.tick()
        ctx.set(dut.experts, networks[0].experts)
        ctx.set(dut.threshold, threshold)
        ctx.set(dut.wanted, wanted)
        for number, command in enumerate(commands):
            await pass_cycles(ctx, wait())
            if isinstance(command, Score):
                ctx.set(dut.threshold, threshold)
                ctx.set(dut.wanted, wanted)
                await offer(ctx, dut.commands, score_fields(programs[command.head], command))
                ctx.set(dut.threshold, 1)  # what counts is that of the clock that accepts
                ctx.set(dut.wanted, 1)
                await show_sums(ctx, number, command)
            elif isinstance(command, Adapt):
                count = len(command.experts)
                experts = command.experts + [0] * (limits.top_k - count)
                fields = {"kind": AdaptKind.ADAPT, "slot": command.slot, "layer": command.layer}
                await offer(ctx, dut.adapt, {**fields, "count": count, "experts": experts})
            else:
                await offer(ctx, dut.adapt, {"kind": AdaptKind.CLEAR, "slot": command.slot})
        quiet = 0
        while quiet < 4:
            await ctx.tick()
            waiting = ctx.get(dut.busy) | ctx.get(dut.prefetch.valid) | ctx.get(dut.values.valid)
            quiet = 0 if waiting else quiet + 1
        ended.append(True)

    async def offer(ctx: Any, port: Any, fields: dict[str, Any]) -> None:
        ctx.set(port.payload, fields)
        ctx.set(port.valid, 1)
        while not ctx.get(port.ready):
            await ctx.tick()
        log.accepted.append(clock[0])
        await ctx.tick()
        ctx.set(port.valid, 0)

    async def show_sums(ctx: Any, number: int, command: Score) -> None:
        program = programs[command.head]
        words = np.zeros((program.settings.words, limits.lanes), np.int64)
        words += 12345  # lanes of no account
        flat = words[:, : program.lanes].reshape(-1)
        flat[: len(command.now)] = command.now
        words[:, : program.lanes] = flat.reshape(program.settings.words, program.lanes)
        await pass_cycles(ctx, sums_after - 1 + wait())
        for place, word in enumerate(words.tolist()):
            last = place == len(words) - 1
            ctx.set(dut.sums, {"head": command.head, "word": place, "last": last, "sums": word})
            ctx.set(dut.sums_valid, 1)
            if last:
                log.shown[number] = clock[0]
            await ctx.tick()
            ctx.set(dut.sums_valid, 0)
            if not last:
                await pass_cycles(ctx, wait())

    async def watch(ctx: Any) -> None:
        await ctx.changed(dut.wanted)  # loaded
        while not ended:
            if ctx.get(dut.scored.valid):
                names = ("head", "slot", "target", "answer", "score", "chance")
                log.scored.append(tuple(int(ctx.get(getattr(dut.scored, name))) for name in names))
            await ctx.tick()

    async def take_prefetch(ctx: Any) -> None:
        await ctx.changed(dut.wanted)
        while not ended:
            if ctx.get(dut.prefetch.valid):
                log.answered["prefetch"].append(clock[0])
                await pass_cycles(ctx, wait())
                ctx.set(dut.prefetch.ready, 1)
                payload = dut.prefetch.payload
                count = ctx.get(payload.count)
                assert [ctx.get(payload.experts[n]) for n in range(count, 8)] == [0] * (8 - count)
                experts, chances = (
                    [ctx.get(part[n]) for n in range(count)] for part in (payload.experts, payload.chances)
                )
                log.prefetch.append((ctx.get(payload.layer), experts, chances))
                await ctx.tick()
                ctx.set(dut.prefetch.ready, 0)
            await ctx.tick()

    async def take_values(ctx: Any) -> None:
        bits = len(dut.values_row) // value_lanes
        await ctx.changed(dut.wanted)
        while not ended:
            if ctx.get(dut.values.valid):
                log.answered["values"].append(clock[0])
                row: list[int] = []
                for group in range(-(-networks[0].experts // value_lanes)):
                    ctx.set(dut.read_values, 1)
                    ctx.set(dut.values_group, group)
                    await ctx.tick()
                    ctx.set(dut.read_values, 0)
                    await pass_cycles(ctx, wait())  # what was read stays
                    word = ctx.get(dut.values_row)
                    row += [word >> bits * lane & ((1 << bits) - 1) for lane in range(value_lanes)]
                log.values.append((ctx.get(dut.values.payload.layer), row[: networks[0].experts]))
                ctx.set(dut.values.ready, 1)
                await ctx.tick()
                ctx.set(dut.values.ready, 0)
            await ctx.tick()

    simulate(dut, clocks, drive, watch, take_prefetch, take_values)
    return log


async def pass_cycles(ctx: Any, cycles: int) -> None:
    """Let so many cycles pass; none where 0."""
    for _ in range(cycles):
        await ctx.tick()


def fill(ctx: Any, dut: ScoresUnit, programs: list[HeadProgram]) -> None:
    """Everything that the unit keeps, at once."""
    for head, program in enumerate(programs):
        for kind, contents in program.contents().items():
            if kind in LOADED:
                rows = dut.memories[kind, head].memory.data
                for address in range(len(contents.data)):
                    ctx.set(rows[address], contents.word(address))


async def load(ctx: Any, dut: ScoresUnit, programs: list[HeadProgram]) -> None:
    """Everything that the unit keeps, over its load bus."""
    granule = PART_BITS // 8
    ctx.set(dut.load.valid, 1)
    for head, program in enumerate(programs):
        contents = program.contents()
        ctx.set(dut.load.head, head)
        for memory in LOADED:
            ctx.set(dut.load.memory, memory)
            for address, word in enumerate(contents[memory].data):
                ctx.set(dut.load.address, address)
                for part in range(0, len(word), granule):
                    ctx.set(dut.load.part, part // granule)
                    ctx.set(dut.load.data, int.from_bytes(word[part : part + granule].tobytes(), "little"))
                    await ctx.tick()
    ctx.set(dut.load.valid, 0)


def score_fields(program: HeadProgram, command: Score) -> dict[str, int]:
    """The payload of a command, as the net's sequencer makes it."""
    layer, settings = program.layers[command.target], program.settings
    return {
        "head": command.head,
        "slot": command.slot,
        "target": command.target,
        "first": command.first,
        "last": command.last,
        "passes": settings.words,
        "questions": settings.questions,
        "hidden_shift": layer.hidden_shift,
        "score_shift": layer.score_shift,
        "adaptation": layer.adaptation,
        "bias": layer.bias,
        "output": layer.output,
        "answers": layer.answers,
        "chances": layer.chances >> 8,
    }


def shuffled_tokens(
    networks: tuple[RowNetwork, RowNetwork], generator: np.random.Generator, *, tokens: int, slots: int, reach: int
) -> list[Command]:
    """What a net asks of its scores unit: tokens of slots that run together, with random sums up to ± ``reach``."""
    network = networks[NEXT_LAYER]
    commands: list[Command] = []

    def score(head: int, slot: int, target: int) -> None:
        now = generator.integers(-reach, reach + 1, networks[head].config.hidden)
        commands.append(Score(head, slot, target, slot == 0, slot == slots - 1, now))

    for token in range(tokens):
        for slot in range(slots):
            if token == 0 or generator.random() < 0.2:
                commands.append(Clear(slot))
            for target in range(network.lookahead):
                score(NEXT_LAYER, slot, target)
        for layer in range(network.layers):
            for slot in range(slots):
                if layer + network.lookahead < network.layers:
                    score(NEXT_LAYER, slot, layer + network.lookahead)
                if generator.random() < 0.9 and network.tables.adaptations[layer]:
                    chosen = generator.choice(network.experts, network.top_k, replace=False).tolist()
                    commands.append(Adapt(slot, layer, chosen))
                score(NEXT_USE, slot, layer)
    return commands
