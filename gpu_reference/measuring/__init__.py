"""Measure a machine: micro-measurements and decoding, in suites that can be interrupted, as a record."""
