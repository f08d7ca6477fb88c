"""Measurement records: JSON files of one schema, which `forestage reference measure` writes."""

from gpu_reference.records.record import MeasurementRecord

__all__ = ["MeasurementRecord"]
