"""ST-MoE's tables: the integer twin of the prefetch engine, its batch form and its cycles."""
