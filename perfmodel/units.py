"""Units of time: every duration of the system model is a whole number of picoseconds."""

PS_PER_S = 10**12
PS_PER_US = PS_PER_S // 10**6
