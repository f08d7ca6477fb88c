"""The PIM unit's address map: every register of the register file, for whoever reads or writes one.

The circuit, the driver (``rtl.pim.driver``), docs/pim-unit.md and the exported SystemRDL all read ``address_map``.
Counters, errors and refusals have their prose in ``pim_model.unit.events``. This module needs no Amaranth.
"""

from dataclasses import dataclass, field

from pim_model.unit.events import Refusal, UnitCounter, UnitError
from pim_model.unit.parameters import INPUT_REGISTERS, LANES, UnitParameters
from pim_model.unit.program import ExpertKind, WeightFormat
from rtl.bus.register_map import (
    DATA_BYTES,
    Access,
    AddressMap,
    Field,
    Register,
    bit,
    constants,
    counter_registers,
)

IDENTITY = 0x4650_4955  # "FPIU"
VERSION = 1
NAME = "pim_unit"
ADDRESS_BITS = 8
COUNTERS_OFFSET = 0x80
STATUS_ERROR_SHIFT = 8
REFUSAL_SHIFT = 16
REFUSAL_BITS = 4


@dataclass(frozen=True, kw_only=True)
class DescriptorField:
    """A register of the descriptor; START looks at its value, which may be any that fits.

    Attributes:
        name: That of ``rtl.pim.base_die.planner.descriptor_layout``.
        offset: Its address.
        width: Its bits.
        codes: Names of values, where it is a choice.
        meaning: A line for the register table.
    """

    name: str
    offset: int
    width: int
    codes: dict[str, int] = field(default_factory=dict)
    meaning: str

    @property
    def register(self) -> Register:
        """The register."""
        value = Field(name=self.name, meaning=self.meaning, access=Access.SETTING, width=self.width, codes=self.codes)
        return Register(name=self.name.upper(), offset=self.offset, fields=(value,))


def _codes(enumeration: type[WeightFormat] | type[ExpertKind]) -> dict[str, int]:
    return {member.name.lower(): int(member) for member in enumeration}


def descriptor_fields(parameters: UnitParameters) -> tuple[DescriptorField, ...]:
    """The descriptor's registers, in the order of their addresses."""
    row_bits = (parameters.bank_rows - 1).bit_length()
    return (
        DescriptorField(
            name="format", offset=0x20, width=2, codes=_codes(WeightFormat), meaning="descriptor: format of the weights"
        ),
        DescriptorField(
            name="kind",
            offset=0x24,
            width=2,
            codes=_codes(ExpertKind),
            meaning="descriptor: what happens between an expert's matrices; none: a matrix alone",
        ),
        DescriptorField(name="tokens", offset=0x28, width=3, meaning="descriptor: input vectors"),
        DescriptorField(
            name="inputs", offset=0x2C, width=16, meaning="descriptor: hidden size; inputs of a matrix alone"
        ),
        DescriptorField(
            name="rows", offset=0x30, width=16, meaning="descriptor: intermediate size; rows of a matrix alone"
        ),
        DescriptorField(
            name="first_bias", offset=0x34, width=1, meaning="descriptor: the (first) matrix's rows have biases"
        ),
        DescriptorField(name="second_bias", offset=0x38, width=1, meaning="descriptor: the rows of down have biases"),
        DescriptorField(
            name="base_row", offset=0x3C, width=row_bits, meaning="descriptor: the banks' row where the weights begin"
        ),
    )


def address_map(parameters: UnitParameters) -> AddressMap:
    """Everything that the bus of a unit reaches."""
    return AddressMap(
        name=NAME,
        meaning="PIM unit: an expert slice at the banks of one pseudo-channel, over AXI4-Lite",
        registers=(
            *_fixed_registers(parameters),
            *(part.register for part in descriptor_fields(parameters)),
            Register(
                name="REFRESH_AT_START",
                offset=0x40,
                fields=(
                    Field(
                        name="refresh_at_start",
                        width=24,
                        meaning="clocks from the last program's clock 0 to the next refresh's being due",
                        access=Access.STATE,
                    ),
                ),
            ),
            *(
                register
                for counter in UnitCounter
                for register in counter_registers(counter.name.lower(), counter.meaning, counter_offset(counter))
            ),
        ),
    )


def counter_offset(counter: UnitCounter) -> int:
    """Address of a counter's low word; the high one follows."""
    return COUNTERS_OFFSET + 2 * DATA_BYTES * counter


def error_name(error: UnitError) -> str:
    """Name of an error's field in STATUS."""
    return f"error_{error.name.lower()}"


def _fixed_registers(parameters: UnitParameters) -> tuple[Register, ...]:
    """All registers but descriptor and counters."""
    status = [
        bit("busy", 0, "a program is in work", Access.STATE),
        bit("done", 1, "the last program is complete, and its results have been taken", Access.STATE),
        bit("aborted", 2, "the last program was ended before it was complete", Access.STATE),
        bit(
            "dropping",
            3,
            "inputs of a program that was ended are still to come, up to TLAST; they are dropped",
            Access.STATE,
        ),
    ]
    status += [
        bit(error_name(error), STATUS_ERROR_SHIFT + error, f"{error.meaning} (sticky)", Access.STATE)
        for error in UnitError
    ]
    status.append(
        Field(
            name="refusal",
            lowest_bit=REFUSAL_SHIFT,
            width=REFUSAL_BITS,
            meaning="why the descriptor was refused",
            codes={refusal.name.lower(): int(refusal) for refusal in Refusal},
            access=Access.STATE,
        )
    )
    return (
        constants("IDENTITY", 0x00, ("identity", 0, 32, '"FPIU" in ASCII', IDENTITY)),
        constants("VERSION", 0x04, ("version", 0, 32, "version of this map", VERSION)),
        constants(
            "LIMITS",
            0x08,
            ("max_inputs", 0, 16, "most inputs of a matrix", parameters.max_inputs),
            ("output_beats", 16, 16, "beats of the output queue", parameters.output_beats),
        ),
        constants(
            "CAPABILITY",
            0x0C,
            ("blocks", 0, 8, "blocks, one at each pair of banks", parameters.blocks.blocks),
            ("lanes", 8, 8, "multipliers of a block", LANES),
            ("input_registers", 16, 8, "input registers of a block", INPUT_REGISTERS),
            ("counters", 24, 8, "number of counters", len(UnitCounter)),
        ),
        constants("BANK_ROWS", 0x10, ("bank_rows", 0, 32, "rows of a bank", parameters.bank_rows)),
        Register(
            name="CONTROL",
            offset=0x14,
            fields=(
                bit("refresh_enable", 0, "1: refreshes are issued when due; 0: they are postponed", Access.SETTING),
                bit(
                    "interrupt_enable",
                    1,
                    "the interrupt is high while done, aborted or an error is set",
                    Access.SETTING,
                ),
            ),
        ),
        Register(
            name="COMMAND",
            offset=0x18,
            fields=(
                bit("start", 0, "run the descriptor; done, aborted and its errors become 0", Access.COMMAND),
                bit("abort", 1, "end the program in work", Access.COMMAND),
                bit("clear_status", 2, "done, aborted and all errors become 0", Access.COMMAND),
                bit("clear_counters", 3, "all counters become 0", Access.COMMAND),
            ),
        ),
        Register(name="STATUS", offset=0x1C, fields=tuple(status)),
    )
