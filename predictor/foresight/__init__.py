"""What a policy knows ahead, as arrays: the worth of each expert's next use, and the experts that coming layers will want.

It depends on the routing alone, not on what a cache holds, so it is computed once and serves every simulation and replay.
"""
