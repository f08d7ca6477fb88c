"""AXI4: signatures of a manager, and the protocol's rules as checks (AMBA AXI protocol specification, IHI 0022).

What the managers here do of AXI4: one identifier, 0, so that answers come in the order of their requests; bursts that
count up (INCR) of whole beats of the bus, up to 256, which do not cross 4 KiB; addresses of whole beats (strobes say
which bytes are written); no exclusive access. The rules check that too.

Each rule is a check, or with ``claim=Assume`` what a proof takes for granted of the other side::

    rules = always_read_manager(m, "far", bus)                       # what the manager guarantees
    always_read_subordinate(m, "far", bus, outstanding=8)            # what the memory does
"""

from dataclasses import dataclass

from amaranth.hdl import Array, Assert, Cat, Const, Module, Mux, Signal, Value, unsigned
from amaranth.lib import enum, wiring
from amaranth.lib.wiring import In, Out

from rtl.bus.axi_lite import Response
from rtl.checks import Claim, always, always_stable, always_within, implies

PAGE_BYTES = 4096
"""What no burst crosses a multiple of."""
MOST_BEATS = 256
"""Beats of the longest burst."""
LENGTH_BITS = 8
"""Bits of ``arlen`` and ``awlen``: beats less one."""


class Burst(enum.Enum, shape=2):  # type: ignore[call-arg]
    """How the address of a burst's beats goes on."""

    FIXED = 0
    INCR = 1
    WRAP = 2


def size_code(data_bits: int) -> int:
    """``arsize`` and ``awsize`` of whole beats: log2 of the bytes.

    Raises:
        ValueError: for a width that AXI4 lacks.
    """
    if data_bits not in (8, 16, 32, 64, 128, 256, 512, 1024):
        raise ValueError(f"data_bits: {data_bits}; AXI4 has 8, 16, 32, … 1024")
    return (data_bits // 8).bit_length() - 1


def _read_members(data_bits: int, address_bits: int, id_bits: int) -> dict[str, wiring.Member]:
    return {
        "arid": Out(id_bits),
        "araddr": Out(address_bits),
        "arlen": Out(LENGTH_BITS),
        "arsize": Out(3, init=size_code(data_bits)),
        "arburst": Out(Burst, init=Burst.INCR),
        "arvalid": Out(1),
        "arready": In(1),
        "rid": In(id_bits),
        "rdata": In(data_bits),
        "rresp": In(Response),
        "rlast": In(1),
        "rvalid": In(1),
        "rready": Out(1),
    }


def _write_members(data_bits: int, address_bits: int, id_bits: int) -> dict[str, wiring.Member]:
    return {
        "awid": Out(id_bits),
        "awaddr": Out(address_bits),
        "awlen": Out(LENGTH_BITS),
        "awsize": Out(3, init=size_code(data_bits)),
        "awburst": Out(Burst, init=Burst.INCR),
        "awvalid": Out(1),
        "awready": In(1),
        "wdata": Out(data_bits),
        "wstrb": Out(data_bits // 8),
        "wlast": Out(1),
        "wvalid": Out(1),
        "wready": In(1),
        "bid": In(id_bits),
        "bresp": In(Response),
        "bvalid": In(1),
        "bready": Out(1),
    }


class Axi4ReadSignature(wiring.Signature):
    """The read channels, AR and R, under their canonical names, from the manager's side.

    ``arsize`` and ``arburst`` begin as whole beats and INCR; a manager need not drive them.
    """

    def __init__(self, data_bits: int, address_bits: int, *, id_bits: int = 1) -> None:
        self.data_bits, self.address_bits, self.id_bits = data_bits, address_bits, id_bits
        super().__init__(_read_members(data_bits, address_bits, id_bits))


class Axi4WriteSignature(wiring.Signature):
    """The write channels, AW, W and B, under their canonical names, from the manager's side.

    ``awsize`` and ``awburst`` begin as whole beats and INCR; a manager need not drive them.
    """

    def __init__(self, data_bits: int, address_bits: int, *, id_bits: int = 1) -> None:
        self.data_bits, self.address_bits, self.id_bits = data_bits, address_bits, id_bits
        super().__init__(_write_members(data_bits, address_bits, id_bits))


class Axi4Signature(wiring.Signature):
    """All five channels, from the manager's side."""

    def __init__(self, data_bits: int, address_bits: int, *, id_bits: int = 1) -> None:
        self.data_bits, self.address_bits, self.id_bits = data_bits, address_bits, id_bits
        super().__init__(
            _read_members(data_bits, address_bits, id_bits) | _write_members(data_bits, address_bits, id_bits)
        )


@dataclass(frozen=True)
class BurstTracker:
    """Bursts that were asked for and are not over, oldest first; of what a rule needs to remember.

    Attributes:
        count: how many, ``0 … depth``.
        lengths: beats less one of each, the oldest at ``first``, circular.
        first: place of the oldest in ``lengths``.
        beat: beats of the oldest that are past.
        begins: one begins in this cycle, and is counted from the next on.
    """

    count: Signal
    lengths: Array
    first: Signal
    beat: Signal
    begins: Value

    @property
    def length(self) -> Value:
        """Beats less one of the oldest."""
        return Value.cast(self.lengths[self.first])


def always_read_manager(m: Module, name: str, bus: wiring.PureInterface, *, claim: Claim = Assert) -> None:
    """Check what a manager does on AR: addresses stay until they are taken; every burst is a legal one."""
    address = Cat(bus.arid, bus.araddr, bus.arlen, bus.arsize, Value.cast(bus.arburst))
    always_stable(m, f"{name}_ar", valid=bus.arvalid, ready=bus.arready, payload=address, claim=claim)
    _always_legal(m, name, bus, "ar", len(bus.rdata), claim)


def always_read_subordinate(
    m: Module, name: str, bus: wiring.PureInterface, *, outstanding: int, last: bool = True, claim: Claim = Assert
) -> BurstTracker:
    """Check what a memory does on R: beats stay until they are taken, answer a request, and the last one says so.

    Args:
        m: the module.
        name: of the bus, in the messages.
        bus: of ``Axi4ReadSignature``.
        outstanding: the most bursts that the manager has asked for at once; more is a breach too.
        last: check ``rlast``, too; without, a memory that misplaces it is not found.
        claim: as in ``rtl.checks``.
    """
    payload = Cat(bus.rid, bus.rdata, Value.cast(bus.rresp), bus.rlast)
    always_stable(m, f"{name}_r", valid=bus.rvalid, ready=bus.rready, payload=payload, claim=claim)
    beats, over = bus.rvalid & bus.rready, Signal(name=f"{name}_r_over")
    tracker = _track(m, f"{name}_r", outstanding, bus.arvalid & bus.arready, bus.arlen, beats, over, claim)
    m.d.comb += over.eq(beats & (tracker.beat == tracker.length))
    always_within(m, tracker.count, 0, outstanding, f"{name}_ar: more bursts than may be under way", claim=claim)
    always(m, implies(bus.rvalid, tracker.count.any()), f"{name}_r: answers nothing", claim=claim)
    always(m, implies(bus.rvalid, bus.rid == 0), f"{name}_r: of another identifier", claim=claim)
    if last:
        right = bus.rlast == (tracker.beat == tracker.length)
        always(m, implies(bus.rvalid, right), f"{name}_r: rlast at another beat than the last", claim=claim)
    return tracker


def always_write_manager(
    m: Module, name: str, bus: wiring.PureInterface, *, outstanding: int, claim: Claim = Assert
) -> BurstTracker:
    """Check what a manager does on AW and W: what is offered stays; every burst is a legal one; ``wlast`` is right.

    A burst's data may be offered from the cycle on in which its address is first offered, taken or not, and not
    before (AXI4 would allow it before).

    Args:
        m: the module.
        name: of the bus, in the messages.
        bus: of ``Axi4WriteSignature``.
        outstanding: the most bursts whose address was offered and whose data is not all taken.
        claim: as in ``rtl.checks``.
    """
    address = Cat(bus.awid, bus.awaddr, bus.awlen, bus.awsize, Value.cast(bus.awburst))
    always_stable(m, f"{name}_aw", valid=bus.awvalid, ready=bus.awready, payload=address, claim=claim)
    beat = Cat(bus.wdata, bus.wstrb, bus.wlast)
    always_stable(m, f"{name}_w", valid=bus.wvalid, ready=bus.wready, payload=beat, claim=claim)
    _always_legal(m, name, bus, "aw", len(bus.wdata), claim)
    waited, over, beats = Signal(name=f"{name}_aw_waited"), Signal(name=f"{name}_w_over"), bus.wvalid & bus.wready
    m.d.sync += waited.eq(bus.awvalid & ~bus.awready)
    offered = bus.awvalid & ~waited
    tracker = _track(m, f"{name}_w", outstanding, offered, bus.awlen, beats, over, claim)
    length = Mux(tracker.count.any(), tracker.length, bus.awlen)
    m.d.comb += over.eq(beats & (tracker.beat == length))
    always_within(m, tracker.count, 0, outstanding, f"{name}_aw: more bursts than may be under way", claim=claim)
    always(m, implies(bus.wvalid, tracker.count.any() | offered), f"{name}_w: data of no burst", claim=claim)
    right = bus.wlast == (tracker.beat == length)
    always(m, implies(bus.wvalid, right), f"{name}_w: wlast at another beat than the last", claim=claim)
    return tracker


def always_write_subordinate(
    m: Module, name: str, bus: wiring.PureInterface, *, outstanding: int, claim: Claim = Assert
) -> tuple[Signal, Signal]:
    """Check what a memory does on B: an answer stays until it is taken, and is of a burst whose data are all taken.

    Args:
        m: the module.
        name: of the bus, in the messages.
        bus: of ``Axi4WriteSignature``.
        outstanding: the most bursts that the manager has begun and that are not answered; more is a breach too.
        claim: as in ``rtl.checks``.

    Returns:
        How many addresses, and how many whole bursts of data, were taken and are not answered.
    """
    payload = Cat(bus.bid, Value.cast(bus.bresp))
    always_stable(m, f"{name}_b", valid=bus.bvalid, ready=bus.bready, payload=payload, claim=claim)
    counts = []
    answered = bus.bvalid & bus.bready
    for what, more in {"aw": bus.awvalid & bus.awready, "w": bus.wvalid & bus.wready & bus.wlast}.items():
        count = Signal(range(outstanding + 2), name=f"{name}_{what}_unanswered")
        m.d.sync += count.eq(count + more - answered)
        always_within(m, count, 0, outstanding, f"{name}_{what}: more bursts than may be under way", claim=claim)
        always(m, implies(bus.bvalid, count.any()), f"{name}_b: answers no burst whose {what} was taken", claim=claim)
        counts.append(count)
    always(m, implies(bus.bvalid, bus.bid == 0), f"{name}_b: of another identifier", claim=claim)
    return counts[0], counts[1]


def _always_legal(m: Module, name: str, bus: wiring.PureInterface, channel: str, data_bits: int, claim: Claim) -> None:
    """Check what this module's description says of every burst; ``channel`` is ``ar`` or ``aw``."""
    code = size_code(data_bits)
    address, length = Value.cast(getattr(bus, f"{channel}addr")), getattr(bus, f"{channel}len")
    beats_of_page = PAGE_BYTES >> code
    in_page = address[code : PAGE_BYTES.bit_length() - 1]
    rules = {
        "another identifier than 0": getattr(bus, f"{channel}id") == 0,
        "a burst that does not count up": Value.cast(getattr(bus, f"{channel}burst")) == Burst.INCR,
        "beats narrower or wider than the bus": getattr(bus, f"{channel}size") == code,
        "the address is not a whole beat's": address[:code] == 0,
        "a burst crosses 4 KiB": in_page + length < beats_of_page,
    }
    for breach, holds in rules.items():
        always(m, implies(getattr(bus, f"{channel}valid"), holds), f"{name}_{channel}: {breach}", claim=claim)


def _track(
    m: Module, name: str, outstanding: int, begins: Value, length: Value, beats: Value, over: Value, claim: Claim
) -> BurstTracker:
    """Remember the bursts that begin, until they are over."""
    depth = 1 << (outstanding - 1).bit_length()
    count = Signal(range(outstanding + 2), name=f"{name}_bursts")
    lengths = Array(Signal(LENGTH_BITS, name=f"{name}_length{n}") for n in range(depth))
    place = unsigned(max(1, (depth - 1).bit_length()))
    first, next_place = Signal(place, name=f"{name}_first"), Signal(place, name=f"{name}_next")
    beat = Signal(LENGTH_BITS, name=f"{name}_beat")
    wraps = Const(depth - 1, place)  # with a depth of 1 both places are 0
    m.d.sync += count.eq(count + begins - over)
    with m.If(begins):
        m.d.sync += lengths[next_place].eq(length)
        m.d.sync += next_place.eq((next_place + 1) & wraps)
    with m.If(over):
        m.d.sync += [first.eq((first + 1) & wraps), beat.eq(0)]
    with m.Elif(beats):
        m.d.sync += beat.eq(beat + 1)
    always(m, ((first + count - next_place) & wraps) == 0, f"{name}: bursts are lost, or there twice", claim=claim)
    if depth == 1:
        always(m, ~(first | next_place), f"{name}: a place that is not there", claim=claim)
    return BurstTracker(count, lengths, first, beat, begins)
