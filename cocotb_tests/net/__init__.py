"""The net of the prefetch engine under Verilator, in lock-step with the twins of its heads."""
