"""HBM and processing in it (PIM): timing, energy, the expert unit's arithmetic and clocks, products in memory."""
