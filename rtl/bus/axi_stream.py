"""AXI4-Stream: the signature."""

from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out


class AxiStreamSignature(wiring.Signature):
    """A stream under its canonical names, from the transmitter's side; ``tkeep`` where beats may be part empty."""

    def __init__(self, data_bits: int, *, keep: bool = False) -> None:
        members = {"tdata": Out(data_bits), "tlast": Out(1), "tvalid": Out(1), "tready": In(1)}
        if keep:
            members["tkeep"] = Out(data_bits // 8)
        super().__init__(members)
