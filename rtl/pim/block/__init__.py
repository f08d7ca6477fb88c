"""The block beside one pair of banks: input registers, lanes, accumulators, constants."""
