"""The order of a study."""

from study.subjects import caches, predictors, trace

SUBJECTS = (trace.SUBJECT, predictors.SUBJECT, caches.SUBJECT)
