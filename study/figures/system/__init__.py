"""Figures of the whole system."""
