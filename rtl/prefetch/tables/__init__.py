"""ST-MoE's tables as hardware: a predictor of the prefetch engine."""
