"""The one net that predicts: a sum of int8 rows picked by expert ids, ReLU, one int8 matrix, a chance for each answer.

What it is asked is a head's: ``predictor.next_layer`` (which experts will a coming layer choose) and
``predictor.next_use`` (within how many tokens is each expert wanted again). ``integers`` states the arithmetic.
"""
