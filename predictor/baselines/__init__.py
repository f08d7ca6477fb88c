"""Unlearned predictors, which use tables of counts and repetition."""
