"""The loader: sections of an image end up in the net's memories, word by word; a wrong one is refused with its code."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from predictor.row_network.image import Image, read_image
from predictor.row_network.integers import BEAT_BYTES
from predictor.row_network.limits import HeadLimits, NetLimits
from predictor.row_network.program import Contents
from predictor.row_network.sections import LoadError, read_section, write_section
from predictor.row_network.text_cycles import load_cycles
from predictor.row_network.text_traffic import NO_ROW, TextSettings
from rtl.prefetch.text.text_memory import TextMemory
from tests.learned_samples import random_next_use, random_predictor
from tests.rtl.prefetch.text.text_bench import Bench, Memory, set_settings, small_limits
from tests.rtl.simulate import simulate

HEAD = HeadLimits(hidden=8, questions=2, row_words=600, previous=2, decays=2, identities=2, matched=4)
LANES = 32
SHAPE = {"layers": 2, "experts": 4, "top_k": 2}
FEW: dict[str, Any] = {
    "layers_back": 1, "previous": ((0, 0),), "decays": ((1, 0),), "continuation_windows": ((1, 1),),
}  # fmt: skip
"""Few sources: the simulator takes a while for each beat."""
NET = NetLimits(slots=3, **SHAPE, lanes=LANES, records=8, next_layer=HEAD, next_use=HEAD)
LIMITS = small_limits(lanes=64)


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Image:
    path: Path = tmp_path_factory.mktemp("image") / "image"
    random_predictor(**SHAPE, **FEW, nearest=1, farthest=2).export(path, lanes=LANES)
    return read_image(path)


def settings_of(image: Image, **changes: Any) -> TextSettings:
    own = TextSettings.of([image.manifest.config], **SHAPE, lanes=64, text_base=0, identity_base=0)
    return own.model_copy(update=changes)


class Loads:
    """A loader with sections in far memory; what it wrote."""

    def __init__(self, settings: TextSettings, *, latency: int = 5, waits: float = 0.0, distance: int = 1) -> None:
        self.unit = TextMemory(LIMITS, NET)
        self.settings, self.distance = settings, distance
        self.memory = Memory(latency=latency, waits=waits)
        self.written: dict[tuple[int, int, int], bytearray] = {}
        self.codes: list[LoadError] = []
        self.cycles: list[int] = []
        self.loaded: list[int] = []

    def run(self, *sections: tuple[int, bytes]) -> None:
        """Load the sections, each laid at its address (of a beat)."""

        async def testbench(ctx: Any) -> None:
            set_settings(ctx, self.unit.settings, self.settings)
            for name, value in {**SHAPE, "distance": self.distance}.items():
                ctx.set(getattr(self.unit.shape, name), value)
            for address, section in sections:
                for beat in range(len(section) // BEAT_BYTES):
                    self.memory.beats[address + beat] = section[beat * BEAT_BYTES : (beat + 1) * BEAT_BYTES]
                ctx.set(self.unit.load_address, address)
                ctx.set(self.unit.load_start, 1)
                await self._load(ctx)

        simulate(self.unit, testbench)

    async def _load(self, ctx: Any) -> None:
        unit = self.unit
        for cycle in range(200_000):
            self.memory.drive(ctx, unit.memory)
            if ctx.get(unit.load.valid):
                self._keep(ctx.get(unit.load))
            done = ctx.get(unit.load_done)
            self.memory.take(ctx, unit.memory)
            await ctx.tick()
            ctx.set(unit.load_start, 0)
            if done:
                self.codes.append(LoadError(int(ctx.get(unit.load_error).value)))
                self.loaded.append(ctx.get(unit.loaded))
                self.cycles.append(cycle)
                return
        raise AssertionError("the load does not end")

    def _keep(self, word: Any) -> None:
        kept = self.written.setdefault((word.head, word.memory, word.address), bytearray(8 * BEAT_BYTES))
        kept[word.part * BEAT_BYTES : (word.part + 1) * BEAT_BYTES] = word.data.to_bytes(BEAT_BYTES, "little")


def assert_loaded(loads: Loads, head: int, *sections: bytes) -> None:
    """Every word of the sections, and nothing else of this head, was written."""
    expected = 0
    for section in sections:
        for memory, words in read_section(section).memories.items():
            for address, word in enumerate(words):
                assert loads.written[head, memory, address][: len(word)] == word.tobytes(), (memory, address)
            expected += len(words)
    assert sum(key[0] == head for key in loads.written) == expected


@pytest.mark.parametrize(("waits", "base"), [(0.0, 64), (0.0, 63), (0.3, 1000)])
def test_both_sections_are_loaded(image: Image, waits: float, base: int) -> None:
    shared, one, _ = image.sections
    loads = Loads(settings_of(image), waits=waits)
    loads.run((base, shared), (base + 5000, one))
    assert loads.codes == [LoadError.NONE, LoadError.NONE]
    assert loads.loaded == [0, 1]
    assert_loaded(loads, 0, shared, one)
    if not waits:
        assert loads.cycles == [load_cycles(section, 5) for section in (shared, one)]


def test_another_distance_takes_its_section_alone(image: Image) -> None:
    shared, one, two = image.sections
    loads = Loads(settings_of(image), distance=2)
    loads.run((64, one), (64, shared), (6000, one), (7000, two))
    assert loads.codes == [LoadError.SHAPE, LoadError.NONE, LoadError.SHAPE, LoadError.NONE]
    assert loads.loaded == [0, 0, 0, 1]
    assert_loaded(loads, 0, shared, two)


def test_both_heads_are_loaded(image: Image, tmp_path: Path) -> None:
    other = random_next_use(np.random.default_rng(1), **SHAPE, **FEW)
    other.export(tmp_path / "image", lanes=LANES)
    sections = read_image(tmp_path / "image").sections
    loads = Loads(settings_of(image))
    loads.run((64, image.sections[0]), (6000, sections[0]), (12000, sections[1]), (18000, image.sections[1]))
    assert loads.codes == [LoadError.NONE] * 4
    assert loads.loaded == [0, 0, 2, 3]
    assert_loaded(loads, 0, *image.sections[:2])
    assert_loaded(loads, 1, *sections)


def changed(section: bytes, **fields: int) -> bytes:
    """A section whose header says something else, with a right checksum."""
    found = read_section(section)
    contents = {memory: Contents(8 * words.shape[1], words) for memory, words in found.memories.items()}
    return write_section({**found.header, **fields}, contents)


def flipped(section: bytes, at: int, bit: int = 2) -> bytes:
    broken = bytearray(section)
    broken[at] ^= 1 << bit
    return bytes(broken)


def test_a_wrong_section_is_refused(image: Image) -> None:
    shared, one, _ = image.sections
    refused = {
        "magic": (flipped(shared, 1), LoadError.MAGIC),
        "version": (flipped(shared, 4), LoadError.VERSION),
        "layers": (changed(shared, layers=3), LoadError.SHAPE),
        "experts": (changed(shared, experts=5), LoadError.SHAPE),
        "top_k": (changed(shared, top_k=1), LoadError.SHAPE),
        "decays": (changed(shared, decays=3), LoadError.SHAPE),
        "operations": (changed(shared, operations=33), LoadError.SHAPE),
        "next-use with identities": (changed(shared, head=1), LoadError.SHAPE),
        "lanes": (changed(shared, lanes=64), LoadError.LANES),
        "tables": (changed(shared, tables=1), LoadError.TEXT),
        "lengths": (changed(shared, length1=3), LoadError.TEXT),
        "entries": (changed(shared, log2_entries=5), LoadError.TEXT),
        "identities": (changed(shared, identities=1), LoadError.TEXT),
        "block of no memory": (flipped(shared, 64, 6), LoadError.BLOCK),
        "block's words": (flipped(shared, 72), LoadError.BLOCK),
        "block's beats": (flipped(shared, 76), LoadError.BLOCK),
        "width": (flipped(shared, 65), LoadError.LANES),
        "data": (flipped(shared, 300), LoadError.CHECKSUM),
        "of another net": (changed(one, identity=1), LoadError.ORDER),
    }
    loads = Loads(settings_of(image), latency=2)
    loads.run((64, shared), *((6000, section) for section, _ in refused.values()), (64, one))
    assert dict(zip(refused, loads.codes[1:-1], strict=True)) == {name: code for name, (_, code) in refused.items()}
    assert loads.loaded == [0] * len(loads.loaded)
    assert loads.codes[-1] == LoadError.ORDER  # the last load of the shared section failed


def test_what_a_bus_error_spoilt_is_not_loaded(image: Image) -> None:
    shared, one, _ = image.sections
    for beat in (64, 70):
        loads = Loads(settings_of(image))
        loads.memory.read_fails = lambda address, beat=beat: address == beat * BEAT_BYTES
        loads.run((64, shared), (6000, one))
        assert loads.codes == [LoadError.BUS, LoadError.ORDER]
        assert loads.loaded == [0, 0]


def test_no_load_begins_while_a_token_is_in_work(image: Image) -> None:
    unit = TextMemory(LIMITS, NET)
    memory = Memory(latency=20)
    codes = []

    async def testbench(ctx: Any) -> None:
        bench = Bench(ctx, unit, memory, settings_of(image))
        await bench.step()
        await bench.token(0, starts=True, identity=3, row=NO_ROW)
        ctx.set(unit.load_start, 1)
        await bench.step()
        ctx.set(unit.load_start, 0)
        while not ctx.get(unit.load_done):
            await bench.step()
        codes.append(LoadError(int(ctx.get(unit.load_error).value)))
        await bench.settle()
        assert len(bench.items) == 1

    simulate(unit, testbench)
    assert codes == [LoadError.BUSY]
    assert len(memory.read) == 1
