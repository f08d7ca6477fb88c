"""Recorded routing given back to a model, and the PIM tile, each against a computation of its own."""
