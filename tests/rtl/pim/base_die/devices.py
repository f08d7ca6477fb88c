"""Devices that the tests build units for."""

from catalog import load_catalog

HBM2_PIM, HBM3 = (load_catalog().dram.find(name) for name in ("HBM2-PIM", "HBM3"))
