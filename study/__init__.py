"""The forestage command and the study from trace to report."""
