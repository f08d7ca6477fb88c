"""Models of memories and buses in SystemVerilog, compiled into the simulation, and the files that they exchange.

A bench's top module, in SystemVerilog too, puts them beside the design (``cocotb_tests.transfers``): Python touches
transactions, not cycles. Each model's description stands in its source.
"""

from pathlib import Path

_FOLDER = Path(__file__).parent

AXI4_RAM = _FOLDER / "axi4_ram.sv"
AXI4_CHECKER = _FOLDER / "axi4_checker.sv"
