"""A memory-mapped register file as data: registers, their fields and, where there is one, a memory.

Whatever speaks of a register reads it here: the circuit, its drivers, the guide's table (``AddressMap.markdown``) and
the SystemRDL that is written beside the Verilog (``rtl.bus.systemrdl``). Offsets are in bytes. This module needs no
Amaranth.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

DATA_BITS = 32
DATA_BYTES = DATA_BITS // 8


class Access(Enum):
    """What the bus can do with a field, and who else changes it."""

    CONSTANT = "constant"  # read; fixed when the hardware is generated
    STATE = "state"  # read; the hardware changes it
    SETTING = "setting"  # read and written; the hardware only reads it
    COMMAND = "command"  # what is written as 1 happens once; cannot be read

    @property
    def readable(self) -> bool:
        """Whether the bus can read it."""
        return self is not Access.COMMAND

    @property
    def writable(self) -> bool:
        """Whether the bus can write it."""
        return self in (Access.SETTING, Access.COMMAND)


@dataclass(frozen=True, kw_only=True)
class Field:
    """Neighbouring bits of a register that mean one thing.

    Attributes:
        name: in lower case.
        meaning: a line of prose.
        access: who reads and writes it.
        lowest_bit, width: its place.
        reset: its value after reset; of a constant, its value.
        minimum, maximum: what may be written; any other value is refused. ``maximum`` is ``None`` where all fit.
        codes: names of values, where they are not numbers.
    """

    name: str
    meaning: str
    access: Access
    lowest_bit: int = 0
    width: int = 1
    reset: int = 0
    minimum: int = 0
    maximum: int | None = None
    codes: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Raise ValueError where the field contradicts itself."""
        largest = (1 << self.width) - 1
        highest = largest if self.maximum is None else self.maximum
        if self.width < 1 or not 0 <= self.lowest_bit <= DATA_BITS - self.width:
            raise ValueError(f"field {self.name}: bits {self.bits} do not lie in a word")
        if not 0 <= self.minimum <= highest <= largest:
            raise ValueError(f"field {self.name}: {self.minimum}…{highest} does not fit {self.width} bits")
        if not self.minimum <= self.reset <= highest:
            raise ValueError(f"field {self.name}: reset {self.reset} is not in {self.minimum}…{highest}")
        if any(not self.minimum <= code <= highest for code in self.codes.values()):
            raise ValueError(f"field {self.name}: a code of {dict(self.codes)} is not in {self.minimum}…{highest}")

    @property
    def bits(self) -> str:
        """Its place in words: ``7:0``, or ``3`` for a single bit."""
        highest = self.lowest_bit + self.width - 1
        return f"{highest}:{self.lowest_bit}" if self.width > 1 else f"{self.lowest_bit}"

    @property
    def mask(self) -> int:
        """Its bits set, in the register."""
        return (1 << self.width) - 1 << self.lowest_bit


@dataclass(frozen=True, kw_only=True)
class Register:
    """A word on the bus.

    Attributes:
        name: in upper case.
        offset: its address.
        fields: ascending; all can be read, or none; all can be written, or none.
        locked: a write is refused while the hardware is on or busy.
    """

    name: str
    offset: int
    fields: tuple[Field, ...]
    locked: bool = False

    def __post_init__(self) -> None:
        """Raise ValueError where fields overlap, are out of order, or have accesses that a word cannot mix."""
        taken = 0
        for part in self.fields:
            if part.mask <= taken:
                raise ValueError(f"register {self.name}: field {part.name} overlaps another or is out of order")
            taken |= part.mask
        if len({(part.access.readable, part.access.writable) for part in self.fields}) != 1:
            raise ValueError(f"register {self.name}: its fields differ in what the bus can do with them")

    @property
    def readable(self) -> bool:
        """Whether the bus can read it."""
        return self.fields[0].access.readable

    @property
    def writable(self) -> bool:
        """Whether the bus can write it."""
        return self.fields[0].access.writable

    @property
    def constant(self) -> bool:
        """Whether it always reads ``reset``."""
        return all(part.access is Access.CONSTANT for part in self.fields)

    @property
    def reset(self) -> int:
        """The whole word after reset."""
        return sum(part.reset << part.lowest_bit for part in self.fields)

    def field(self, name: str) -> Field:
        """The field of that name.

        Raises:
            KeyError: there is none.
        """
        return {part.name: part for part in self.fields}[name]


def constants(name: str, offset: int, *fields: tuple[str, int, int, str, int]) -> Register:
    """A register of constants, given as (name, lowest bit, width, meaning, value)."""
    return Register(
        name=name,
        offset=offset,
        fields=tuple(
            Field(name=field, lowest_bit=lowest, width=width, meaning=meaning, reset=value, access=Access.CONSTANT)
            for field, lowest, width, meaning, value in fields
        ),
    )


def bit(name: str, place: int, meaning: str, access: Access) -> Field:
    """A field of one bit."""
    return Field(name=name, lowest_bit=place, meaning=meaning, access=access)


COUNTER_BITS = 48


def counter_registers(name: str, meaning: str, offset: int) -> tuple[Register, Register]:
    """A counter's low word, whose read keeps the high one, and its high word; ``name`` in lower case."""
    low = Field(name=name, width=DATA_BITS, meaning=f"counter: {meaning}", access=Access.STATE)
    high = Field(
        name=f"{name}_high",
        width=COUNTER_BITS - DATA_BITS,
        meaning="the high word, as the low word was last read",
        access=Access.STATE,
    )
    return (
        Register(name=low.name.upper(), offset=offset, fields=(low,)),
        Register(name=high.name.upper(), offset=offset + DATA_BYTES, fields=(high,)),
    )


@dataclass(frozen=True, kw_only=True)
class MemoryWindow:
    """Rows of a memory on the bus: row ``address`` at ``offset + address · stride``, its words low first.

    Attributes:
        name: in upper case.
        meaning: a line of prose.
        offset: first byte, a power of two above all registers.
        stride: bytes from row to row, a power of two.
        rows: how many there are.
        words: words of a row; the rest of the stride is no memory.
    """

    name: str
    meaning: str
    offset: int
    stride: int
    rows: int
    words: int


@dataclass(frozen=True, kw_only=True)
class AddressMap:
    """All that a bus reaches.

    Attributes:
        name: of the hardware, an identifier.
        meaning: a line of prose.
        registers: ascending.
        memory: above them, or none.
    """

    name: str
    meaning: str
    registers: tuple[Register, ...]
    memory: MemoryWindow | None = None

    def __post_init__(self) -> None:
        """Raise ValueError where registers share a word or a name, or reach the memory."""
        offsets = [register.offset for register in self.registers]
        if any(offset % DATA_BYTES for offset in offsets) or sorted(set(offsets)) != offsets:
            raise ValueError(f"{self.name}: registers do not ascend word by word: {offsets}")
        if self.memory is not None and offsets[-1] >= self.memory.offset:
            raise ValueError(f"{self.name}: the registers reach the memory at {self.memory.offset:#x}")
        if len({register.name for register in self.registers}) != len(self.registers):
            raise ValueError(f"{self.name}: two registers have one name")

    def register(self, name: str) -> Register:
        """The register of that name.

        Raises:
            KeyError: there is none.
        """
        return {register.name: register for register in self.registers}[name]

    def offset(self, register: str) -> int:
        """Address of the register of that name.

        Raises:
            KeyError: there is none.
        """
        return self.register(register).offset

    def mask(self, register: str, field: str) -> int:
        """The bits of a register's field.

        Raises:
            KeyError: there is none.
        """
        return self.register(register).field(field).mask

    def markdown(self) -> str:
        """The map as a table for a guide."""
        lines = ["| offset | register | access | content |", "|---|---|---|---|"]
        lines += [
            _row(register.offset, register.name, _access(register), _content(register)) for register in self.registers
        ]
        if (memory := self.memory) is not None:
            meaning = f"{memory.meaning}; {memory.rows} rows, {memory.stride} bytes apart"
            lines.append(_row(memory.offset, memory.name, "RW", meaning))
        return "\n".join(lines)


def _row(offset: int, name: str, access: str, content: str) -> str:
    return f"| `{offset:#06x}` | `{name}` | {access} | {content} |"


def _access(register: Register) -> str:
    access = "R" * register.readable + "W" * register.writable
    return f"{access}, when off" if register.locked else access


def _content(register: Register) -> str:
    """The prose of a register's fields; the one that fills its register needs neither place nor name."""
    if [part.name.upper() for part in register.fields] == [register.name]:
        return described(register.fields[0])
    return "; ".join(f"{part.bits} `{part.name}`: {described(part)}" for part in register.fields)


def described(part: Field) -> str:
    """A field's prose with its codes or range, reset value or constant, as far as it has any."""
    codes = ", ".join(f"{code} {name}" for name, code in part.codes.items())
    text = f"{part.meaning}: {codes}" if codes else part.meaning
    if part.access is Access.CONSTANT:
        return f"{text}, {part.reset:#x}" if part.width == DATA_BITS else f"{text}, {part.reset}"
    if part.access is Access.SETTING and part.maximum is not None:
        return f"{text}; reset {part.reset}" if codes else f"{text}; {part.minimum}…{part.maximum}, reset {part.reset}"
    return text
