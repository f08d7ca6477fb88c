"""The hardware under Verilator, in lock-step with its integer twins."""
