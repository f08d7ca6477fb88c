"""Widths of buses: handshakes are single bits, and a bus that meets another has the widths of its standard."""

import pytest
from amaranth.hdl import Shape
from amaranth.lib import wiring

from rtl.bus.axi_lite import AxiLiteSignature

AXI_LITE = {
    "awaddr": 12, "awvalid": 1, "awready": 1, "wdata": 32, "wstrb": 4, "wvalid": 1, "wready": 1, "bresp": 2,
    "bvalid": 1, "bready": 1, "araddr": 12, "arvalid": 1, "arready": 1, "rdata": 32, "rresp": 2, "rvalid": 1,
    "rready": 1, "awprot": 3, "arprot": 3,
}  # fmt: skip
"""AMBA AXI and ACE protocol specification, chapter B1, with 12 bits of address."""


@pytest.mark.parametrize(("signature", "widths"), [(AxiLiteSignature(12), AXI_LITE)])
def test_each_signal_of_a_bus_has_its_width(signature: wiring.Signature, widths: dict[str, int]) -> None:
    assert {name: Shape.cast(member.shape).width for name, member in signature.members.items()} == widths
