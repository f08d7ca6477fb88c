"""HBM timing, and the exact integer arithmetic of the PIM (processing-in-memory) tile."""
