"""Figures of the report, one module a subject: each function takes a stage's document and returns a figure."""
