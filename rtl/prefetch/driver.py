"""Software's side of the prefetch engine's registers: settings, commands, status, counters, by the address map's names.

``setting_values`` makes of the twin's settings what the registers hold; ``PrefetchEngineDriver`` writes and reads them.
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from catalog.errors import ForestageError
from predictor.engine.counters import EngineCounter
from predictor.engine.events import EngineError
from predictor.engine.limits import BEAT_BYTES, PrefetchEngineLimits
from predictor.engine.settings import Mode, PrefetchEngineSettings
from predictor.row_network.integers import id_bytes
from predictor.row_network.text_traffic import TextSettings
from predictor.st_moe.parameters import EngineConfiguration
from rtl.bus.register_driver import RegisterDriver
from rtl.bus.register_map import DATA_BITS, DATA_BYTES
from rtl.prefetch.address_map import (
    IDENTITY,
    VERSION,
    Command,
    Interrupt,
    address_map,
    counter_offset,
)
from rtl.prefetch.limits import table_limits, text_limits
from rtl.prefetch.setting_registers import BEAT_SHIFT, MODE, settings, table_signal
from rtl.prefetch.tables.address_map import Window


def setting_values(
    limits: PrefetchEngineLimits,
    chosen: PrefetchEngineSettings,
    *,
    tables: EngineConfiguration | None = None,
    text: TextSettings | None = None,
    image_base: int = 0,
) -> dict[str, int]:
    """What every setting but the mode and the shares is set to, by name; the tables' are left out where not given.

    Args:
        limits: of the engine.
        chosen: its settings.
        tables: the table predictor's, of the same shape; needed in mode ``TABLES``.
        text: those of the memory of the text, of the same shape; ``None``: nothing is looked up.
        image_base: where the image lies, in bytes.

    Raises:
        ForestageError: they do not fit the engine, or contradict each other.
    """
    chosen.check(limits)
    found = {
        name: int(getattr(chosen, name))
        for name in (
            "layers", "experts", "top_k", "domains", "identity_rows", "next_layer", "next_use", "distance",
            "prefetched", "threshold", "missing",
        )
    }  # fmt: skip
    found |= _stager_values(limits, chosen)
    link = chosen.link
    found |= {
        f"link_{name}": int(getattr(link, name))
        for name in (
            "expert_bytes", "expert_stride", "staging_stride", "expert_base", "staging_base", "outstanding", "share",
            "silence",
        )
    }  # fmt: skip
    found["link_chunk_log2"] = link.chunk_bytes.bit_length() - 1
    found["image_base"] = _beats("image_base", image_base)
    if tables is not None:
        found |= _table_values(chosen, tables)
    elif chosen.mode is Mode.TABLES:
        raise ForestageError("prefetch engine: mode is tables, and their configuration is not given; give it")
    if text is not None:
        found |= _text_values(limits, chosen, text)
    else:
        # Nothing of an earlier text may stay in force.
        found |= {one.name: one.reset or 0 for one in settings(limits) if one.name.startswith("text_")}
    for setting in settings(limits):
        value = found.get(setting.name, setting.low)
        if not setting.low <= value <= setting.high(limits):
            raise ForestageError(
                f"prefetch engine: {setting.name} is {value}; its register holds {setting.low} to "
                f"{setting.high(limits)}"
            )
    return found


def _stager_values(limits: PrefetchEngineLimits, chosen: PrefetchEngineSettings) -> dict[str, int]:
    """The stager's; a horizon beyond every deadline is all ones."""
    stager = chosen.stager
    found = {
        f"stager_{name}": int(getattr(stager, name))
        for name in ("value_scale", "chance_scale", "price", "by_recency", "background", "retries")
    }
    found["stager_horizon"] = min(stager.horizon, (1 << limits.deadline_bits) - 1)
    found["stager_spare"] = limits.spare
    found["stager_by_layer"] = int(len(stager.shares) > 1)
    return found


def _table_values(chosen: PrefetchEngineSettings, tables: EngineConfiguration) -> dict[str, int]:
    found = {table_signal(name): value for name, value in tables.register_values().items()}
    for name in ("layers", "experts", "top_k", "domains", "distance"):
        if (value := found.pop(name)) != getattr(chosen, name):
            raise ForestageError(
                f"prefetch engine: the tables' settings and the engine's differ in {name} "
                f"({value} and {getattr(chosen, name)}); give both the same"
            )
    return found


def _text_values(limits: PrefetchEngineLimits, chosen: PrefetchEngineSettings, text: TextSettings) -> dict[str, int]:
    text.check(text_limits(limits))
    for name in ("layers", "experts", "top_k"):
        if getattr(text, name) != getattr(chosen, name):
            raise ForestageError(
                f"prefetch engine: the text's settings and the engine's differ in {name} "
                f"({getattr(text, name)} and {getattr(chosen, name)}); give both the same"
            )
    first, last = text.window
    found = {
        "tables": len(text.lengths),
        "by_routing": int(text.by_routing),
        "log2_entries": text.entries.bit_length() - 1,
        "log2_log": text.log_tokens.bit_length() - 1,
        "at_match": int(text.at_match),
        "window": int(last >= first),
        "window_first": first if last >= first else 0,
        "window_last": max(last, 0),
        "wide_ids": int(id_bytes(text.experts) > 1),
        "record_beats": text.record_beats,
        "identities": text.identities,
        "row_beats": text.row_beats,
        "word_beats": text.word_beats,
        "base": _beats("text_base", text.text_base),
        "stride": _beats("text_stride", text.text_stride),
        "identity_base": _beats("identity_base", text.identity_base),
        "identity_stride": _beats("identity_stride", text.identity_stride),
    }
    for nth in range(text_limits(limits).tables_max):
        found[f"length{nth}"] = text.lengths[nth] if nth < len(text.lengths) else 0
    return {f"text_{name}": value for name, value in found.items()}


def _beats(name: str, address: int) -> int:
    """A number of bytes as beats.

    Raises:
        ForestageError: they are not whole ones.
    """
    if address % BEAT_BYTES:
        raise ForestageError(f"prefetch engine: {name}: {address:#x} is no multiple of {BEAT_BYTES} bytes; align it")
    return address >> BEAT_SHIFT


_IMAGE_ERRORS = EngineError.IMAGE_SHAPE | EngineError.IMAGE_CHECKSUM | EngineError.IMAGE_READ


@dataclass(frozen=True, kw_only=True)
class EngineStatus:
    """STATUS, read; see the address map."""

    busy: bool
    loading: bool
    loaded: bool
    unclear: bool
    host_pending: bool


class PrefetchEngineDriver(RegisterDriver):
    """Sets up and watches an engine over a bus.

    Args:
        limits: What the engine was generated with.
        read: Reads a word at an address.
        write: Writes a word at an address; it raises where the engine refuses.
        clear_text: Sets so many bytes from an address on to 0, in the memory that the port ``text`` reaches; needed
            where texts are looked up.
        pause: Waited for between two polls of STATUS; without it they follow each other at once.
    """

    def __init__(
        self,
        limits: PrefetchEngineLimits,
        read: Callable[[int], Awaitable[int]],
        write: Callable[[int, int], Awaitable[None]],
        clear_text: Callable[[int, int], Awaitable[None]] | None = None,
        *,
        pause: Callable[[], Awaitable[object]] | None = None,
    ) -> None:
        super().__init__(
            address_map(limits),
            name="prefetch engine",
            known=f"version {VERSION} of the engine {IDENTITY:#x} with these limits",
            read=read,
            write=write,
        )
        self._limits = limits
        self._clear_text = clear_text
        self._pause = pause
        self._settings = {setting.name: setting for setting in settings(limits)}

    async def configure(
        self,
        chosen: PrefetchEngineSettings,
        *,
        tables: EngineConfiguration | None = None,
        text: TextSettings | None = None,
        image_base: int | Sequence[int] | None = None,
        polls: int = 1_000_000,
    ) -> None:
        """Set an engine up that was told no event, or whose last layer has been released, and switch it on.

        With ``image_base``, the image there is loaded, or of several each in turn (of each head the shared section,
        then the distance's); mode ``LEARNED`` wants those of every head that is asked. What the stager knew is
        forgotten, and where texts are looked up their memory is cleared: what lay there before might look like a text.

        Raises:
            ForestageError: as ``setting_values``; texts are looked up, and the driver cannot clear their memory; the
                engine stays busy; the image is not loaded.
        """
        bases = (image_base,) if isinstance(image_base, int) else tuple(image_base or ())
        first = bases[0] if bases else 0
        values = setting_values(self._limits, chosen, tables=tables, text=text, image_base=first)
        if text is not None and text.lengths and self._clear_text is None:
            raise ForestageError(
                "prefetch engine: texts are looked up, and nobody clears their memory; give the driver clear_text"
            )
        await self.set("stager_background", 0)  # else it never rests
        await self.wait_idle(polls)
        await self.set_mode(Mode.OFF)
        for name, value in values.items():
            if name != "stager_background":
                await self.set(name, value)
        for layer, share in enumerate(chosen.stager.shares):
            await self.set("share_layer", layer)
            await self._write(self._map.offset("SHARE"), share)
        for nth, base in enumerate(bases):
            if nth:
                await self.set("image_base", _beats("image_base", base))
            await self.load(polls, whole=nth == len(bases) - 1)
        if text is not None:
            await self._clear_texts(text)
        await self.clear(polls)
        await self.wait_idle(polls)
        if chosen.mode is not Mode.OFF:
            await self.set_mode(chosen.mode)
        await self.set("stager_background", values["stager_background"])

    async def _clear_texts(self, text: TextSettings) -> None:
        """The tables and the log of every slot become 0."""
        if self._clear_text is None or not text.text_bytes:
            return
        for slot in range(self._limits.slots_max):
            await self._clear_text(text.text_base + slot * text.text_stride, text.text_bytes)

    async def set(self, name: str, value: int) -> None:
        """Write a setting's register or registers; what counts whole beats is in beats."""
        setting = self._settings[name]
        word = value << setting.lowest_bit
        for nth in range(setting.words):
            await self._write(self._map.offset(name.upper()) + nth * DATA_BYTES, word >> DATA_BITS * nth & 0xFFFF_FFFF)

    async def get(self, name: str) -> int:
        """Read a setting back."""
        setting = self._settings[name]
        word = 0
        for nth in range(setting.words):
            word |= await self._read(self._map.offset(name.upper()) + nth * DATA_BYTES) << DATA_BITS * nth
        return word >> setting.lowest_bit

    async def set_mode(self, mode: Mode) -> None:
        """Who predicts from now on; the engine refuses while it is busy."""
        await self.set(MODE.name, int(mode))

    async def load(self, polls: int = 1_000_000, *, whole: bool = True) -> None:
        """Load the image at IMAGE_BASE; with ``whole`` every head that is asked must then have its own.

        Raises:
            ForestageError: it was not loaded, or is still being loaded after so many polls; ``errors`` says why.
        """
        before = await self.errors()
        await self.command(Command.LOAD)
        status = await self._poll(polls, lambda status: not status.loading)
        failed = await self.errors() & _IMAGE_ERRORS & ~before
        if failed or (whole and not status.loaded):
            names = ", ".join(str(error.name) for error in await self.errors()) or "none"
            raise ForestageError(f"prefetch engine: the image was not loaded; errors: {names}")

    async def clear(self, polls: int = 1_000_000) -> None:
        """Everything begins anew, by the settings that are in force."""
        await self.command(Command.CLEAR)
        await self._host_done(polls)

    async def preload(self, layer: int, experts: Sequence[int], polls: int = 1_000_000) -> None:
        """These experts of a layer are at their places already, each the most recently used."""
        await self._host(Command.PRELOAD, layer, experts, polls)

    async def fix(self, layer: int, experts: Sequence[int], *, fixed: bool = True, polls: int = 1_000_000) -> None:
        """These never give way, or may again."""
        await self._host(Command.FIX if fixed else Command.UNFIX, layer, experts, polls)

    async def load_tables(self, image: NDArray[np.uint32]) -> None:
        """Write the table memory ``[rows, words]``, as ``StMoeTables.to_memory_image``."""
        window = Window.of(table_limits(self._limits))
        for address, row in enumerate(image.tolist()):
            for word, value in enumerate(row):
                await self._write(window.offset(address, word), value)

    async def read_tables(self) -> NDArray[np.uint32]:
        """The table memory ``[rows, words]``."""
        memory, window = self._map.memory, Window.of(table_limits(self._limits))
        assert memory is not None
        found = [
            [await self._read(window.offset(address, word)) for word in range(memory.words)]
            for address in range(memory.rows)
        ]
        return np.array(found, np.uint32)

    async def status(self) -> EngineStatus:
        """STATUS."""
        word = await self._read(self._map.offset("STATUS"))
        return EngineStatus(**{part.name: bool(word & part.mask) for part in self._map.register("STATUS").fields})

    async def wait_idle(self, polls: int = 1_000_000) -> None:
        """Poll STATUS until nothing is in work.

        Raises:
            ForestageError: something still is after so many polls.
        """
        status = await self._poll(polls, lambda status: not (status.busy or status.host_pending))
        if status.busy or status.host_pending:
            raise ForestageError(
                f"prefetch engine: busy after {polls} polls of STATUS; release every layer that runs first"
            )

    async def _poll(self, polls: int, is_done: Callable[[EngineStatus], bool]) -> EngineStatus:
        """STATUS when it is done, or after so many polls."""
        for nth in range(polls):
            if nth and self._pause is not None:
                await self._pause()
            if is_done(status := await self.status()):
                break
        return status

    async def errors(self) -> EngineError:
        """What went wrong since the errors were cleared."""
        return EngineError(await self._read(self._map.offset("ERRORS")))

    async def interrupts(self) -> Interrupt:
        """Why the engine calls, enabled or not."""
        return Interrupt(await self._read(self._map.offset("INTERRUPT_STATUS")))

    async def enable_interrupts(self, causes: Interrupt, errors: EngineError | None = None) -> None:
        """What calls; of errors: all, or those given."""
        if errors is not None:
            await self._write(self._map.offset("ERROR_ENABLE"), int(errors))
        await self._write(self._map.offset("INTERRUPT_ENABLE"), int(causes))

    async def counters(self) -> dict[EngineCounter, int]:
        """All counters; each one's two words belong together."""
        return {counter: await self._counter(counter_offset(counter)) for counter in EngineCounter}

    async def command(self, commands: Command) -> None:
        """Write COMMAND."""
        await self._write(self._map.offset("COMMAND"), int(commands))

    async def _host(self, command: Command, layer: int, experts: Sequence[int], polls: int) -> None:
        for expert in experts:
            place = self._map.register("HOST_EXPERT").field("host_layer").lowest_bit
            await self._write(self._map.offset("HOST_EXPERT"), layer << place | expert)
            await self.command(command)
            await self._host_done(polls)

    async def _host_done(self, polls: int) -> None:
        if (await self._poll(polls, lambda status: not status.host_pending)).host_pending:
            raise ForestageError(f"prefetch engine: the stager has not taken a command after {polls} polls of STATUS")
