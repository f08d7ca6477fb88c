"""The stager in compiled form: every command a compiled function over one state of plain arrays.

A compiled simulator calls them from its own loop, without Python between (``commands``); Python calls the same through
``stager.CompiledStager``, whose methods are those of ``staging.stager.twin.Stager``. Decisions, counters, entries and
cycles are the twin's exactly (tested after every command): the twin states the rules, and this form only finds the same
answers faster. ``state`` is the arrays, ``directory`` who gives way and who gains, ``queue`` the order of transfers.
"""
