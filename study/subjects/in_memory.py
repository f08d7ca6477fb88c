"""Experts that run in the memory in which they lie: one expert by tokens, and whole systems beside it."""

from functools import partial
from typing import Any

from catalog import load_catalog
from catalog.progress import Progress
from perfmodel.comparison import compare
from perfmodel.config import SimulationConfig
from perfmodel.costs import CostModel
from perfmodel.expert_times import expert_times
from perfmodel.in_memory import ExpertMemory
from perfmodel.simulator import Simulator
from predictor.policies.material import has_decode
from predictor.policies.parts import Part
from predictor.policies.plan import Missing
from predictor.policies.policy import Eviction, Policy
from study import needs
from study.stages import Stage, StudyContext, kept
from study.subjects import system
from study.subjects.base import Subject
from study.system.in_memory_section import TITLE, section
from study.system.machine import simulation_config
from study.system.parts import Training, system_parts, training_of

STATIC_IN_MEMORY = Policy(eviction=Eviction.STATIC, missing=Missing.IN_MEMORY)


def run(context: StudyContext, progress: Progress) -> dict[str, Any]:
    """Time one expert by tokens, and compare all policies with and without the memory at each batch."""
    settings = context.config.system
    batches = batches_of(context)
    training = training_of(context.trace, system.trained(context))
    found = []
    for done, batch in enumerate(batches):
        progress(done, len(batches))
        tuning, test = system_parts(
            training, batch=batch, tokens=settings.map_tokens, tuning_tokens=settings.map_tuning_tokens, oracles=False
        )
        at = partial(_compared, context, training, tuning, test)
        found.append({"batch": batch, **kept(context, "in-memory", f"batch-{batch}", at)})
    progress(len(batches), len(batches))
    assert settings.sizes_of is not None, "left out without"
    experts = expert_times(settings.sizes_of, in_memory_config(context, settings.capacity_fraction))
    return {
        "experts": experts.model_dump(mode="json"),
        "batches": found,
        "prompts_decoded": training.prompts_decoded,
    }


def in_memory_config(context: StudyContext, share: float) -> SimulationConfig:
    """The study's machine with the memory beside it; ``share`` of all experts held on the device."""
    return simulation_config(context, share).model_copy(update={"in_memory": context.config.system.in_memory})


def batches_of(context: StudyContext) -> tuple[int, ...]:
    """Sequences at once; one where the trace has prompts alone."""
    return context.config.system.in_memory_batches if has_decode(context.trace) else (1,)


def _compared(context: StudyContext, training: Training, tuning: Part, test: Part) -> dict[str, Any]:
    """All policies with the memory, and the static placement of a device that holds nothing."""
    config = in_memory_config(context, context.config.system.capacity_fraction)
    point = compare(tuning, test, config, training.uses, host=True)
    alone = Simulator.of(test, config.model_copy(update={"capacity_fraction": 0.0}), training.uses, host=False)
    return {
        "point": point.model_dump(mode="json"),
        "none_held": alone.outcome(STATIC_IN_MEMORY, alone.run(STATIC_IN_MEMORY)).model_dump(mode="json"),
        "tokens": test.timed_tokens,
        "sequences": test.trace.sequences,
        "tuning_tokens": tuning.timed_tokens,
    }


def memory_of(context: StudyContext) -> ExpertMemory:
    """The memory beside the study's machine.

    Raises:
        ForestageError: where it cannot run the model's experts.
    """
    settings, catalog = context.config.system, load_catalog()
    assert settings.sizes_of is not None, "left out without"
    costs = CostModel(catalog.find_model(settings.sizes_of), catalog.machines.find(settings.machine))
    return ExpertMemory.of(settings.in_memory, costs, catalog)


def lacks(context: StudyContext) -> str | None:
    """Why the trace cannot be simulated, or its experts not be run in memory; ``None`` if they can."""
    if "system" in context.left_out:
        return f"the whole system is left out: {context.left_out['system']}"
    why = needs.refusal(memory_of, context)
    return None if why is None else f"{why} (settings of the study: system.in_memory)"


SUBJECT = Subject(Stage("in-memory", "Experts in memory", run), section, title=TITLE, lacks=lacks)
