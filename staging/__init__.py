"""Where experts are: residency and eviction, the specification of that hardware."""
