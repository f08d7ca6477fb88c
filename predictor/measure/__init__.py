"""Measure and compare predictors."""
