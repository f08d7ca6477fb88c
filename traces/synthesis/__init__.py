"""Synthetic traces of any shape and length, fitted to a recorded one. See ``docs/synthetic-traces.md``."""

from traces.synthesis.profile import Shape
from traces.synthesis.synthesise import synthesise

__all__ = ["Shape", "synthesise"]
