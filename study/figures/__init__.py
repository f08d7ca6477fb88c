"""Figures of the report, one module per subject: each function takes a stage's document and returns a figure."""
