"""How predictors are measured, and compared."""
