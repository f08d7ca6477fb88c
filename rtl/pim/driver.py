"""Software's side of the unit's registers: descriptors, status, counters, by the names of the address map."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from catalog.errors import ForestageError
from pim_model.unit.events import Refusal, UnitCounter, UnitError
from pim_model.unit.parameters import UnitParameters
from pim_model.unit.program import ExpertKind, WeightFormat
from rtl.bus.register_driver import RegisterDriver
from rtl.pim.address_map import IDENTITY, VERSION, address_map, counter_offset, descriptor_fields, error_name


@dataclass(frozen=True, kw_only=True)
class Descriptor:
    """What a program is said to the unit with; see ``rtl.pim.address_map.descriptor_fields``.

    Attributes:
        format, kind: Of the weights; of the expert.
        tokens: Input vectors.
        inputs: Hidden size; of a matrix alone its inputs.
        rows: Intermediate size; of a matrix alone its rows.
        first_bias, second_bias: Which matrices' rows have biases.
        base_row: Where the weights begin.
    """

    format: WeightFormat
    kind: ExpertKind = ExpertKind.NONE
    tokens: int = 1
    inputs: int
    rows: int
    first_bias: bool = False
    second_bias: bool = False
    base_row: int = 0

    def writes(self, parameters: UnitParameters) -> list[tuple[int, int]]:
        """The (offset, value) writes that say it.

        Raises:
            ForestageError: a value does not fit its register; the unit would refuse the write.
        """
        found = []
        for part in descriptor_fields(parameters):
            value = int(getattr(self, part.name))
            if not 0 <= value < 1 << part.width:
                raise ForestageError(
                    f"PIM unit descriptor: {part.name} is {value}; its register holds 0 to {(1 << part.width) - 1}"
                )
            found.append((part.offset, value))
        return found


@dataclass(frozen=True, kw_only=True)
class UnitStatus:
    """STATUS, read.

    Attributes:
        busy, done, aborted, dropping: Its bits.
        errors: Those that are set.
        refusal: Why the descriptor was refused.
    """

    busy: bool
    done: bool
    aborted: bool
    dropping: bool
    errors: frozenset[UnitError]
    refusal: Refusal


class UnitDriver(RegisterDriver):
    """Runs programs over a bus.

    Args:
        parameters: What the unit was generated with.
        read: Reads a word at an address.
        write: Writes a word at an address; it raises where the unit refuses.
    """

    def __init__(
        self,
        parameters: UnitParameters,
        read: Callable[[int], Awaitable[int]],
        write: Callable[[int, int], Awaitable[None]],
    ) -> None:
        super().__init__(
            address_map(parameters),
            name="PIM unit",
            known=f"version {VERSION} of the unit {IDENTITY:#x} with these parameters",
            read=read,
            write=write,
        )
        self._parameters = parameters

    async def control(self, *, refresh: bool, interrupt: bool = False) -> None:
        """Set CONTROL."""
        value = self._bits("CONTROL", refresh_enable=refresh, interrupt_enable=interrupt)
        await self._write(self._map.offset("CONTROL"), value)

    async def start(self, descriptor: Descriptor) -> None:
        """Say the descriptor, and START."""
        for offset, value in descriptor.writes(self._parameters):
            await self._write(offset, value)
        await self._command(start=True)

    async def abort(self) -> None:
        """End the program in work."""
        await self._command(abort=True)

    async def clear(self, *, status: bool = True, counters: bool = False) -> None:
        """Sticky bits, or counters, become 0."""
        await self._command(clear_status=status, clear_counters=counters)

    async def status(self) -> UnitStatus:
        """STATUS."""
        word = await self._read(self._map.offset("STATUS"))
        fields = {part.name: (word & part.mask) >> part.lowest_bit for part in self._map.register("STATUS").fields}
        return UnitStatus(
            **{name: bool(fields[name]) for name in ("busy", "done", "aborted", "dropping")},
            errors=frozenset(error for error in UnitError if fields[error_name(error)]),
            refusal=Refusal(fields["refusal"]),
        )

    async def wait(self, polls: int = 1_000_000) -> UnitStatus:
        """Poll STATUS until no program is in work, nor inputs of one that was ended are to be dropped.

        Raises:
            ForestageError: one still is after so many polls.
        """
        for _ in range(polls):
            status = await self.status()
            if not (status.busy or status.dropping):
                return status
        raise ForestageError(
            f"PIM unit: a program is in work, or its inputs are still wanting, after {polls} polls of STATUS"
        )

    async def counters(self) -> dict[UnitCounter, int]:
        """All counters; each one's two words belong together."""
        return {counter: await self._counter(counter_offset(counter)) for counter in UnitCounter}

    async def refresh_at_start(self) -> int:
        """Clock of the last program in which the first refresh was due."""
        return await self._read(self._map.offset("REFRESH_AT_START"))

    async def _command(self, **bits: bool) -> None:
        await self._write(self._map.offset("COMMAND"), self._bits("COMMAND", **bits))

    def _bits(self, register: str, **bits: bool) -> int:
        return sum(self._map.mask(register, name) for name, is_set in bits.items() if is_set)
