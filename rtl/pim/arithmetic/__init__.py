"""The PIM unit's arithmetic: FP32, BF16, E2M1 and integers, bit for bit as in `pim_model.numerics`.

FP32 and BF16 are IEEE 754, rounded to nearest, ties to even, with three rules of their own: a subnormal operand counts
as zero of its sign; a result below the least normal number is zero of its sign; every NaN that comes out is 0x7FC00000
(BF16: 0x7FC0). Components are pipelines without an enable: a result is there ``LATENCY`` clocks after its operands.
"""
