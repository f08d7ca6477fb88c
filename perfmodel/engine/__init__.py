"""The reference of the system model: a discrete-event simulation in plain Python, to be read beside its rules.

What moves and what gives way is decided by `staging.stager.twin.Stager` alone; the parts here own time. One file
each: ``clock``, ``link``, ``host`` (the processor beside the device), ``prefetch_engine``, ``device``, and
``simulation``, which ties them and states the order of things within an instant.
"""

from perfmodel.engine.simulation import simulate

__all__ = ["simulate"]
