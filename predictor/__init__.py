"""Which experts come next: baselines, ST-MoE's tables as integer twin, metrics."""
