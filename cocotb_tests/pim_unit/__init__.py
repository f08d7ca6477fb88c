"""The PIM expert unit under Verilator: its DRAM, its buses' drivers, and what checks its commands and results."""
