"""The order of a study."""

from study.subjects import caches, engine, predictors, reference, system, tile, trace

SUBJECTS = (
    trace.SUBJECT,
    predictors.SUBJECT,
    caches.SUBJECT,
    engine.SUBJECT,
    tile.SUBJECT,
    system.SUBJECT,
    reference.SUBJECT,
)
