"""What the unit counts, and why it refuses a descriptor or ends a program."""

from enum import IntEnum
from typing import Self


class _Described(IntEnum):
    """Numbered from 0 on, each with a line of prose."""

    meaning: str

    def __new__(cls, value: int, meaning: str = "") -> Self:
        """A member and its line."""
        member = int.__new__(cls, value)
        member._value_ = value
        member.meaning = meaning
        return member


class UnitCounter(_Described):
    """What is counted, in the order of the registers.

    Attributes:
        meaning: A line for the register table.
    """

    PROGRAMS = 0, "programs completed"
    ACTIVATES = 1, "ACTs"
    CLOSES = 2, "PREHs and PREABs"
    REFRESHES = 3, "REFABs"
    COLUMNS = 4, "PIM commands"
    LOADS = 5, "LDIs"
    READBACKS = 6, "RDAs"
    BUSY_CLOCKS = 7, "clocks in which a program was in work"
    INPUT_WAIT_CLOCKS = 8, "of these, clocks in which only inputs were wanting for the next column"
    OUTPUT_WAIT_CLOCKS = 9, "of these, clocks in which a readback waited for room in the output queue"
    ROW_WAIT_CLOCKS = 10, "of these, clocks in which the next column could have been read but for its row"


class UnitError(_Described):
    """What goes wrong, in the order of STATUS's bits.

    Attributes:
        meaning: A line for the register table.
    """

    START = 0, "START while a program was in work, or inputs were being dropped: ignored"
    DESCRIPTOR = 1, "the last START's descriptor was refused; see refusal"
    SHORT_INPUT = 2, "TLAST came before the last input: the program was ended"
    LONG_INPUT = 3, "the last input came without TLAST: the program was ended"
    REFRESH = 4, "more than eight refreshes were due: contents of the banks may be lost"
    NONFINITE = 5, "an infinity or a NaN among the outputs, the inputs of down, or inputs made INT8"


class Refusal(_Described):
    """Why a descriptor is refused; the value is the code in STATUS.

    Attributes:
        meaning: A line for the register table.
    """

    NONE = 0, "it was not"
    FORMAT = 1, "no such format"
    KIND = 2, "no such kind"
    TOKENS = 3, "no tokens, or more than the format allows"
    INPUTS = 4, "no inputs, or more than the buffer holds"
    ROWS = 5, "no rows, or more than the buffer holds as inputs of down"
    ROOM = 6, "the weights reach beyond the banks' last row"
