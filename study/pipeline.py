"""The order of a study."""

from study.subjects import (
    caches,
    engine,
    in_memory,
    learned,
    memory,
    next_use,
    predictors,
    reference,
    system,
    trace,
    unit,
)

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
    in_memory.SUBJECT,
    reference.SUBJECT,
)
