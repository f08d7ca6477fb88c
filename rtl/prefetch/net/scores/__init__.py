"""From the sums of a target layer to answers: hidden units, scores, chances, adaptation, the best experts, values."""
