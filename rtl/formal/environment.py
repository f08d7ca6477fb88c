"""What a proof takes for granted of a circuit's inputs: the rules of the buses, written once."""

from amaranth.hdl import Assume, Cat, Module, Value
from amaranth.lib import wiring

from rtl.checks import always_stable


def offers(m: Module, name: str, stream: wiring.PureInterface) -> None:
    """Assume that the source of ``stream``, an input, keeps what it offers until it is taken."""
    always_stable(
        m,
        name,
        valid=Value.cast(stream.valid),
        ready=Value.cast(stream.ready),
        payload=Value.cast(stream.payload),
        claim=Assume,
    )


def axi_lite_master(m: Module, name: str, bus: wiring.PureInterface) -> None:
    """Assume that the master of ``bus`` keeps addresses and data until they are taken."""
    channels = {
        "aw": (bus.awvalid, bus.awready, Cat(bus.awaddr, bus.awprot)),
        "w": (bus.wvalid, bus.wready, Cat(bus.wdata, bus.wstrb)),
        "ar": (bus.arvalid, bus.arready, Cat(bus.araddr, bus.arprot)),
    }
    for channel, (valid, ready, payload) in channels.items():
        always_stable(m, f"{name}_{channel}", valid=valid, ready=ready, payload=payload, claim=Assume)
