"""What a synthesis finds, per block and in all, and how it differs from another."""

from pathlib import Path

from pydantic import Field, ValidationError

from catalog.config import StrictModel, describe_validation_error
from catalog.errors import ForestageError


class Memory(StrictModel):
    """A memory of a block.

    Attributes:
        block: The block that it is in; empty for the unit itself.
        name: Its name there.
        depth: Words.
        width: Bits of a word.
        read_ports, write_ports: How many of each.
        instances: How often it is in the whole.
        flip_flops: Whether it was made of flip-flops; else it is left out of all areas, and its bits are listed.
    """

    block: str
    name: str
    depth: int
    width: int
    read_ports: int
    write_ports: int
    instances: int = 1
    flip_flops: bool = False

    @property
    def bits(self) -> int:
        """Bits in one instance."""
        return self.depth * self.width


class Block(StrictModel):
    """A module, without those inside it.

    Attributes:
        name: Path from the unit; empty for the unit's own.
        instances: How often it is in the whole.
        figures: Figure → value of one instance.
    """

    name: str
    instances: int
    figures: dict[str, float]


class LongestPath(StrictModel):
    """The slowest way from a register or a port to the next.

    Attributes:
        ns: Its length.
        start, end: Where it begins and ends.
    """

    ns: float
    start: str
    end: str


class Synthesis(StrictModel):
    """A unit on a target.

    Attributes:
        unit: Its name.
        target: What it was synthesised for.
        parameters: What it was generated with.
        blocks: Its blocks.
        total: Figure → sum over all instances of all blocks.
        memories: Its memories, if the target has none of its own.
        sram_bits: Bits of the memories that are in no area.
        path: The longest path.
        fmax_mhz: The clock that it allows, on an FPGA; of several placements, the fastest one's.
        fmax_of_seeds_mhz: That of each placement, of seed 1 first; empty of a sum.
        not_counted: What none of the figures contains.
        tools: Versions of the tools, by package.
        inputs: What was read besides: file's library → SHA-256.
    """

    unit: str
    target: str
    parameters: dict[str, int] = Field(default_factory=dict)
    blocks: tuple[Block, ...]
    total: dict[str, float]
    memories: tuple[Memory, ...] = ()
    sram_bits: int = 0
    path: LongestPath | None = None
    fmax_mhz: float | None = None
    fmax_of_seeds_mhz: tuple[float, ...] = ()
    not_counted: str
    tools: dict[str, str]
    inputs: dict[str, str] = Field(default_factory=dict)

    def text(self) -> str:
        """The record as the text of its file."""
        return self.model_dump_json(indent=2) + "\n"


def read_record(path: Path) -> Synthesis:
    """The synthesis in the file ``path``.

    Raises:
        ForestageError: it cannot be read or is no such record.
    """
    try:
        return Synthesis.model_validate_json(path.read_bytes())
    except OSError as error:
        raise ForestageError(f"{path}: cannot read the record ({error.strerror}); write one with --save") from error
    except ValidationError as error:
        raise ForestageError(
            f"{path}: no record of a synthesis: {describe_validation_error(Synthesis, error)}"
        ) from error


def total_of(blocks: tuple[Block, ...]) -> dict[str, float]:
    """Sum of every figure over all instances."""
    names = dict.fromkeys(name for block in blocks for name in block.figures)
    return {name: round(sum(block.instances * block.figures.get(name, 0) for block in blocks), 4) for name in names}
