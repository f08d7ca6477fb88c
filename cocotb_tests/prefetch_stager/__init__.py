"""The stager's circuit under Verilator, in lock-step with its twin."""
