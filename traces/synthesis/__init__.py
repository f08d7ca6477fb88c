"""Synthetic traces: fitted to a recorded one, of any shape and length. See ``docs/synthetic-traces.md``."""

from traces.synthesis.profile import Shape
from traces.synthesis.synthesise import synthesise

__all__ = ["Shape", "synthesise"]
