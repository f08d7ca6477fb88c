"""A head of the row network: within how many tokens is each expert wanted again? What a cache should keep."""
