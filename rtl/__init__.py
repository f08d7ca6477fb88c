"""The hardware, in Amaranth: prefetch engine, PIM tile, buses, Verilog."""
