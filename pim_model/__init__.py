"""HBM and its processing in memory (PIM): timing, energy, the expert unit's arithmetic and clocks, products in memory."""
