"""Next use: the chance that an expert is wanted within the next n tokens, for cache replacement."""
