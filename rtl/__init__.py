"""The hardware, in Amaranth: prefetch engine, PIM expert unit, buses, Verilog."""
