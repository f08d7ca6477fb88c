"""The learned predictor: a sparse sum of int8 rows picked by expert ids, ReLU, one int8 matrix, a score an expert.

``LearnedPredictor`` (``predictor.learned.predictor``) is the integer twin that the hardware is held against.
"""
