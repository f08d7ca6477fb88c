"""What the hardware costs: area and speed on an FPGA and in standard cells, per block, before any wire is laid."""
