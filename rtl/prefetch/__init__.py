"""The prefetch engine: ST-MoE's tables as hardware."""
