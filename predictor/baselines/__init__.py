"""Unlearned predictors: what tables of counts and repetition foresee."""
