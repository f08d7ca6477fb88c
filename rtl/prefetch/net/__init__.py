"""The learned predictor in hardware: sums of rows, and what becomes of them."""
