"""The sums of the net against a head's program in plain integers, every one that is asked for, and its clock."""

from typing import Any

import numpy as np
import pytest

from cocotb_tests.net.script import row_bits
from predictor.row_network.program import HeadProgram, Memory
from predictor.row_network.sum_cycles import Issue, run_all
from rtl.prefetch.net.layouts import SumsKind
from rtl.prefetch.net.sums.sums import Sums
from tests.learned_samples import random_next_use, random_predictor
from tests.predictor.row_network.program_interpreter import HeadInterpreter
from tests.predictor.row_network.test_program import program_of
from tests.rtl.prefetch.net.net_bench import load, passes_of, small_limits
from tests.rtl.simulate import simulate

MEMORIES = (
    Memory.ROWS,
    Memory.GATE_PROGRAM,
    Memory.MATCHED,
    Memory.RECORDS,
    Memory.IDENTITY_SHIFTS,
)


class Script:
    """Commands to the sums of both heads, what each shows, and when."""

    def __init__(self, programs: list, slots: int, generator: np.random.Generator) -> None:
        self.programs, self.generator = programs, generator
        self.units = [[HeadInterpreter(program) for _ in range(slots)] for program in programs]
        self.turns = [[0] * slots for _ in programs]
        self.commands: list[dict[str, Any]] = []
        self.shown: list[tuple[int, int, np.ndarray]] = []

    def add(self, head: int, slot: int, kind: SumsKind, **fields: Any) -> None:
        self.commands.append({"kind": kind, "head": head, "slot": slot, "turn": self.turns[head][slot], **fields})

    def show(self, head: int, sums: np.ndarray) -> None:
        for word, lanes in enumerate(sums.reshape(-1, self.programs[head].lanes)):
            self.shown.append((head, word, lanes))

    def token(self, slot: int, *, starts: bool, texts: int, unrecorded: float, held: list) -> None:
        """A token of one slot, of both heads alternately."""
        generator = self.generator
        for head, program in enumerate(self.programs):
            unit, settings = self.units[head][slot], program.settings
            if starts:
                unit.start_sequence()
                self.add(head, slot, SumsKind.CLEAR)
            for age in range(settings.identities):
                for layer in range(settings.layers):
                    row = generator.integers(-128, 128, settings.words * program.lanes)
                    unit.identity(layer, age, row)
                    for word in range(settings.words):
                        data = row_bits(row.reshape(-1, program.lanes)[word])
                        self.add(head, slot, SumsKind.IDENTITY, layer=layer, index=age, word=word, data=data)
            for record in generator.integers(0, len(program.records) + 1, texts).tolist():
                layer = int(generator.integers(settings.layers))
                ids = generator.choice(settings.experts, settings.top_k, replace=False)
                unit.record(record, layer, ids)
                self.add(head, slot, SumsKind.RECORD, layer=layer, index=record, experts=ids.tolist())
            for target in range(min(settings.distance, settings.layers)):
                self.add(head, slot, SumsKind.SHOW, layer=target)
                self.show(head, unit.asked(target))
        for layer in range(settings.layers):
            recorded = bool(generator.random() >= unrecorded)
            if recorded:
                held[layer] = generator.choice(settings.experts, settings.top_k, replace=False).tolist()
            known = held[layer] is not None
            fields = {
                "layer": layer,
                "experts": held[layer] or [0] * settings.top_k,
                "recorded": recorded,
                "held": known,
            }
            for head in range(len(self.programs)):
                shown = self.units[head][slot].gate(layer, np.array(fields["experts"]), recorded=recorded, held=known)
                if shown is not None:
                    self.add(head, slot, SumsKind.ASK, **fields)
                    self.show(head, shown)
            for head in range(len(self.programs)):
                self.add(head, slot, SumsKind.REST, **fields)
        for head, program in enumerate(self.programs):
            self.units[head][slot].end_token()
            self.turns[head][slot] = (self.turns[head][slot] + 1) % program.settings.ring


def run(script: Script, limits: Any, *, gaps: bool) -> None:
    """Every sum that is shown, and without gaps the clock of each."""
    dut = Sums(limits)
    generator = np.random.default_rng(1)
    loaded, done = [], []
    told: list[int] = []
    seen: list[tuple[int, int, int, list[int]]] = []

    async def tell(ctx: Any) -> None:
        for head, program in enumerate(script.programs):
            for name, value in program.settings.fields().items():
                ctx.set(dut.settings[head][name], value)
            await load(ctx, dut.load, program.contents(), head, MEMORIES)
        loaded.append(True)
        for command in script.commands:
            while gaps and generator.random() < 0.5:
                await ctx.tick()
            ctx.set(dut.commands.valid, 1)
            ctx.set(dut.commands.payload, {name: value for name, value in command.items() if name != "turn"})
            while not ctx.get(dut.commands.ready):
                await ctx.tick()
            told.append(clock[0])
            await ctx.tick()
            ctx.set(dut.commands.valid, 0)
        while ctx.get(dut.busy):
            await ctx.tick()
        done.append(True)

    clock = [0]

    async def count(ctx: Any) -> None:
        while not done:
            await ctx.tick()
            clock[0] += 1

    async def watch(ctx: Any) -> None:
        while not done:
            await ctx.tick()
            if ctx.get(dut.now.valid):
                word = dut.now.sums
                lanes = script.programs[ctx.get(word.head)].lanes
                values = [ctx.get(word.sums[lane]) for lane in range(lanes)]
                seen.append((clock[0], ctx.get(word.head), ctx.get(word.word), values))

    simulate(dut, count, tell, watch)
    assert len(seen) == len(script.shown)
    for found, (head, word, lanes) in zip(seen, script.shown, strict=True):
        assert found[1:3] == (head, word)
        np.testing.assert_array_equal(found[3], lanes)
    issue, free = Issue(), told[0]
    for command, at in zip(script.commands, told, strict=True):
        if not gaps:
            assert at == free, command
        spacing = 2 if command["kind"] == SumsKind.RECORD else 1
        passes = passes_of(script.programs[command["head"]], command["head"], command)
        if command["kind"] == SumsKind.RECORD and not passes:
            free = at + 2
            continue
        free = run_all(issue, passes, at + (3 if spacing == 2 else 1), spacing=spacing)
    assert [found[0] for found in seen] == issue.shown


def networks(*, top_k: int) -> list[HeadProgram]:
    shape = {"layers": 4, "experts": 5, "top_k": top_k}
    first = random_predictor(hidden=14, **shape).network
    second = random_next_use(np.random.default_rng(2), ranked=True, **shape).network
    return [program_of(first, lanes=8), program_of(second, lanes=8)]


@pytest.mark.parametrize(("top_k", "gaps"), [(1, True), (4, False)])
def test_the_sums_are_the_programs_in_its_clocks(top_k: int, gaps: bool) -> None:
    script = Script(networks(top_k=top_k), 2, np.random.default_rng(top_k))
    held: list[list[list[int] | None]] = [[None] * 4, [None] * 4]
    for token in range(3):
        for slot in range(2):
            starts = token == 0 or (token == 2 and slot == 0)
            if starts:
                held[slot] = [None] * 4
            script.token(slot, starts=starts, texts=3, unrecorded=0.2, held=held[slot])
    head = {**small_limits().next_layer.model_dump(), "hidden": 16, "row_words": 800}
    run(script, small_limits(next_layer=head, layers=4, experts=5), gaps=gaps)


def test_a_token_that_follows_at_once_upon_the_one_before_is_noticed() -> None:
    script = Script(networks(top_k=1), 1, np.random.default_rng(0))
    script.add(0, 0, SumsKind.REST, layer=3, experts=[0], recorded=True, held=True)
    script.add(0, 0, SumsKind.SHOW, layer=0)
    head = {**small_limits().next_layer.model_dump(), "hidden": 16, "row_words": 800}
    with pytest.raises(AssertionError, match="too soon"):
        run(script, small_limits(next_layer=head, layers=4, experts=5), gaps=False)
