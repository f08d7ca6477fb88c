"""Predictions in files, ours and other people's: the experts predicted for each token and layer.

``docs/predictions.md`` documents the file. ``writer.write_predictions`` writes one, ``file.open_predictions`` opens
one, and ``scorer.PredictionsScorer`` gives its ranking to the metrics, as any predictor does.
"""
