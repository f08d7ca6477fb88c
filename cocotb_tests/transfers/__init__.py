"""The DMA under Verilator between two memories: real sizes, and many faults."""
