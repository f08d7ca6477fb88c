"""HBM timing and the exact integer arithmetic of the PIM tile."""
