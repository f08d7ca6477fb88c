"""What was routed: the trace type, its file, importers, statistics and splits."""
