"""The whole prefetch engine under Verilator: memories, an environment that runs layers, logs, comparison with the twin.

``bench.sv`` is the simulated top: the engine between memory models (``cocotb_tests/models``) and ``runner.sv``, which
offers events and waits for notices as a machine that runs layers would; all of it is compiled. Python configures over
the control port, starts, sleeps until the events are through, and reads what the bench has logged.
"""
