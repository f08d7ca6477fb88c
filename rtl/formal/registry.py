"""All proofs, by name."""

from catalog.errors import unknown_name
from rtl.formal import bus, dma, engine, link, pim_unit, prefetch, scores, stager, stager_whole, streams, text
from rtl.formal.task import Task

TASKS: dict[str, Task] = {
    task.name: task
    for module in (
        bus,
        prefetch,
        engine,
        stager,
        stager_whole,
        link,
        dma,
        text,
        scores,
        streams,
        pim_unit,
    )
    for task in module.TASKS
}
"""Every proof that ``make formal`` runs; a module of proofs is added to the tuple."""


def task_of(name: str) -> Task:
    """The proof ``name``.

    Raises:
        ForestageError: there is none of that name; the nearest is named.
    """
    if name not in TASKS:
        raise unknown_name("proof", name, TASKS)
    return TASKS[name]
