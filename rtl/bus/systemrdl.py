"""An address map as SystemRDL 2.0 (Accellera), from which other tools make C headers, pages and verification models.

The constructs used are of the standard's clauses on fields (9), registers (10), memories (11) and address maps (13).
"""

from rtl.bus.register_map import DATA_BITS, DATA_BYTES, Access, AddressMap, Field, MemoryWindow, Register, described

# Software's and hardware's access to a field (clause 9.4).
_ACCESS = {
    Access.CONSTANT: "sw = r; hw = na;",
    Access.STATE: "sw = r; hw = w;",
    Access.SETTING: "sw = rw; hw = r;",
    Access.COMMAND: "sw = w; hw = r; singlepulse;",
}


def systemrdl(address_map: AddressMap) -> str:
    """The text of the map, an ``addrmap`` of the map's name."""
    lines = [
        f"// {address_map.meaning}. Made by `forestage rtl generate` with the Verilog of the same name.",
        f"addrmap {address_map.name} {{",
        f"  name = {_string(address_map.name)};",
        f"  desc = {_string(address_map.meaning)};",
        f"  default regwidth = {DATA_BITS};",
        f"  default accesswidth = {DATA_BITS};",
        "  littleendian;",
    ]
    for register in address_map.registers:
        lines += _register(register)
    if address_map.memory is not None:
        lines += _memory(address_map.memory)
    return "\n".join([*lines, "};", ""])


def _register(register: Register) -> list[str]:
    lines = ["  reg {", f"    name = {_string(register.name)};"]
    if register.locked:
        lines.append('    desc = "Writable only while the hardware is off and not busy.";')
    for field in register.fields:
        lines += _field(field)
    return [*lines, f"  }} {register.name} @ {register.offset:#x};"]


def _field(field: Field) -> list[str]:
    """A field, after the ``enum`` of its codes."""
    lines = []
    encode = ""
    highest = field.lowest_bit + field.width - 1
    if field.codes:
        encode = f" encode = {field.name}_codes;"
        lines.append(f"    enum {field.name}_codes {{")
        lines += [f"      {name} = {field.width}'d{code};" for name, code in field.codes.items()]
        lines.append("    };")
    lines += [
        "    field {",
        f"      desc = {_string(described(field))};",
        f"      {_ACCESS[field.access]}{encode}",
        f"    }} {field.name}[{highest}:{field.lowest_bit}] = {field.width}'h{field.reset:x};",
    ]
    return lines


def _memory(memory: MemoryWindow) -> list[str]:
    """A memory of words; those of a stride beyond a row's words answer an error."""
    words = memory.stride // DATA_BYTES
    return [
        "  external mem {",
        f"    name = {_string(memory.name)};",
        "    desc = "
        + _string(
            f"{memory.meaning}: {memory.rows} rows, a row every {words} words, of which the first {memory.words} exist"
        )
        + ";",
        f"    mementries = {memory.rows * words};",
        f"    memwidth = {DATA_BITS};",
        "    sw = rw;",
        f"  }} {memory.name} @ {memory.offset:#x};",
    ]


def _string(text: str) -> str:
    """A string literal."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
