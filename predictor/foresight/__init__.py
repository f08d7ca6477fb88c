"""What a policy knows ahead, as arrays: the worth of each expert's next use, and the experts of coming layers.

It depends on the routing alone, not on what a cache holds, so it is computed once and serves every simulation and
replay.
"""
