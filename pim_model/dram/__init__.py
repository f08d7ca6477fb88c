"""DRAM by its commands: timing constraints as data, a memory controller, streams and their closed forms."""
