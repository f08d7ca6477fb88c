"""A measured machine in place of a catalogue's: constants from micro-measurements, and the times that they give.

Nothing here is fitted to a measured decode step. `constants` says what must be known, `curves` how it is read between
measured points, `times` what is made of it.
"""

from perfmodel.measured.constants import HostConstants, LayerConstants, MeasuredConstants
from perfmodel.measured.curves import CopyLine, Curve, Grid
from perfmodel.measured.times import measured_times

__all__ = ["CopyLine", "Curve", "Grid", "HostConstants", "LayerConstants", "MeasuredConstants", "measured_times"]
