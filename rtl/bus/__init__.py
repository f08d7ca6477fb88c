"""Buses that the designs share."""
