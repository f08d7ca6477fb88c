"""A memory of one read and one write port, of any size at no cost in the conversion to Verilog."""

from amaranth.hdl import ClockSignal, Instance, Module, ResetSignal, unsigned
from amaranth.lib import wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out
from typing_extensions import override

from rtl.checks import always, implies
from rtl.verilog import SharedParts


class Ram(wiring.Component):
    """Words of ``bits``; zero at first, as block RAM is.

    Amaranth's own memory, but in the Verilog, where it is a module of its own: Amaranth goes through every bit of a
    memory's initial contents, which takes minutes for the megabits of a net.

    Args:
        bits: Of a word.
        depth: Words.
        granule: Bits that have a write enable of their own; ``None``: the whole word.
        collisions: Whether a word may be read in the clock in which it is written. Where it may not (a check says so),
            an FPGA's block RAM needs no registers and comparators beside it.

    Members:
        read, read_address: A word is read; ``read_data`` is it a clock later, as it was before a write in the same
            clock, and stays.
        write: One bit for each granule that is written, at ``write_address``, of ``write_data``.

    Attributes:
        memory: What holds the words, in Amaranth's simulator.

    Raises:
        ValueError: granules that are no part of a word, or a memory of fewer than two words.
    """

    def __init__(self, bits: int, depth: int, *, granule: int | None = None, collisions: bool = True) -> None:
        self._bits, self._depth, self._granule = bits, depth, granule or bits
        self._collisions = collisions
        if bits % self._granule or depth < 2:
            raise ValueError(f"{depth} words of {bits} bits in granules of {self._granule}")
        self.memory = Memory(shape=unsigned(bits), depth=depth, init=[])
        super().__init__(
            {
                "read": In(1),
                "read_address": In(range(depth)),
                "read_data": Out(bits),
                "write": In(bits // self._granule),
                "write_address": In(range(depth)),
                "write_data": In(bits),
            }
        )

    @override
    def elaborate(self, platform: object) -> Module:
        m = Module()
        if not self._collisions:
            collides = self.write.any() & (self.read_address == self.write_address)
            always(m, implies(self.read, ~collides), "ram: a word is read while it is written")
        if isinstance(platform, SharedParts):
            self.memory._MustUse__silence = True
            name = f"ram_{self._depth}x{self._bits}"
            if self._granule != self._bits:
                name += f"_by_{self._granule}"
            if not self._collisions:
                name += "_apart"
            platform.texts[name] = self._verilog(name, contents=platform.contents)
            ports = [
                ("o" if member.flow is wiring.Out else "i", path[0], value)
                for path, member, value in self.signature.flatten(self)
            ]
            m.submodules.words = Instance(name, ("i", "clk", ClockSignal()), ("i", "rst", ResetSignal()), *ports)
            return m
        m.submodules.memory = self.memory
        read, write = self.memory.read_port(), self.memory.write_port(granularity=self._granule)
        m.d.comb += [
            read.addr.eq(self.read_address),
            read.en.eq(self.read),
            self.read_data.eq(read.data),
            write.addr.eq(self.write_address),
            write.data.eq(self.write_data),
            write.en.eq(self.write),
        ]
        return m

    def _verilog(self, name: str, *, contents: bool) -> str:
        """The module; Verilog-2001."""
        bits, address = self._bits - 1, (self._depth - 1).bit_length() - 1
        enables = self._bits // self._granule
        writes = "".join(
            f"    if (write[{nth}]) words[write_address][{self._granule * (nth + 1) - 1}:{self._granule * nth}]"
            f" <= write_data[{self._granule * (nth + 1) - 1}:{self._granule * nth}];\n"
            for nth in range(enables)
        )
        if enables == 1:
            writes = "    if (write) words[write_address] <= write_data;\n"
        initial = f"""  integer row;
  initial
    for (row = 0; row < {self._depth}; row = row + 1)
      words[row] = 0;
"""
        vector = f"[{enables - 1}:0] " if enables > 1 else ""
        attribute = "" if self._collisions else "(* no_rw_check *) "
        return f"""
module {name}(clk, rst, read, read_address, read_data, write, write_address, write_data);
  input clk;
  input rst;
  input read;
  input [{address}:0] read_address;
  output [{bits}:0] read_data;
  input {vector}write;
  input [{address}:0] write_address;
  input [{bits}:0] write_data;
  {attribute}reg [{bits}:0] words [0:{self._depth - 1}];
  reg [{bits}:0] found;
{initial if contents else ""}  assign read_data = found;
  always @(posedge clk)
    if (read) found <= words[read_address];
  always @(posedge clk) begin
{writes}  end
endmodule
"""
