"""The order of a study."""

from study.subjects import caches, engine, learned, memory, next_use, predictors, reference, system, trace, unit

SUBJECTS = (
    trace.SUBJECT,
    learned.SUBJECT,
    next_use.SUBJECT,
    predictors.SUBJECT,
    caches.SUBJECT,
    engine.SUBJECT,
    unit.SUBJECT,
    memory.SUBJECT,
    system.SUBJECT,
    reference.SUBJECT,
)
