"""The whole system: every policy at each share held, and which wins over which link and beside which host memory."""

from functools import partial
from typing import Any

import numpy as np

from catalog.progress import Progress
from perfmodel.comparison import compare
from perfmodel.config import SimulationConfig
from perfmodel.costs_of import check_fits
from predictor.next_layer.predictor import NextLayerPredictor
from predictor.next_use.predictor import NextUsePredictor
from predictor.policies.material import has_decode
from predictor.policies.parts import Part, Predictors
from study import needs
from study.stages import Stage, StudyContext, kept
from study.subjects.base import Subject
from study.subjects.learned import PREDICTOR_FILE as NEXT_LAYER_FILE
from study.subjects.next_use import PREDICTOR_FILE as NEXT_USE_FILE
from study.system.machine import shares_of, simulation_config
from study.system.parts import Training, chosen_sequences, system_parts, training_of
from study.system.section import TITLE, section
from traces import DECODE

Points = dict[str, SimulationConfig]
"""Name of a point → its configuration."""


def run(context: StudyContext, progress: Progress) -> dict[str, Any]:
    """Compare all policies at each share held, and those that are no oracles' at each point of the maps."""
    settings = context.config.system
    grid = sorted(settings.capacity_fractions)
    points = {f"share-{share}": simulation_config(context, share) for share in shares_of(context)}
    by_link = {
        f"link-{link}-{share}": simulation_config(context, share, link_gb_per_s=link)
        for share in grid
        for link in sorted(settings.link_gb_per_s)
    }
    by_host = {
        f"host-{host}-{share}": simulation_config(context, share, host_gb_per_s=host)
        for share in grid
        for host in sorted(settings.map_host_gb_per_s)
    }
    read = 2  # parts whose foresight is made; each takes about as long as a point
    begun, total = read + len(points), 2 * read + len(points) + len(by_link) + len(by_host)
    training = training_of(context.trace, trained(context))
    tuning, test = system_parts(
        training, tokens=settings.tokens, tuning_tokens=settings.tuning_tokens,
        progress=lambda done, _: progress(done, total),
    )  # fmt: skip
    found = _compared(context, training, tuning, test, points, lambda done, _: progress(read + done, total))
    few_tuning, few = system_parts(
        training, tokens=settings.map_tokens, tuning_tokens=settings.map_tuning_tokens, oracles=False,
        progress=lambda done, _: progress(begun + done, total),
    )  # fmt: skip
    cells = _compared(
        context, training, few_tuning, few, {**by_link, **by_host},
        lambda done, _: progress(begun + read + done, total),
    )  # fmt: skip
    return {
        "points": found,
        "map": cells[: len(by_link)],
        "host_map": cells[len(by_link) :],
        "tokens": test.timed_tokens,
        "sequences": test.trace.sequences,
        "map_tokens": few.timed_tokens,
        "map_sequences": few.trace.sequences,
        "tuning_tokens": tuning.timed_tokens,
        "map_tuning_tokens": few_tuning.timed_tokens,
        "prompts_decoded": training.prompts_decoded,
    }


def _compared(
    context: StudyContext, training: Training, tuning: Part, test: Part, points: Points, progress: Progress
) -> list[dict[str, Any]]:
    """The comparison at each of ``points``, kept one by one."""

    def at(config: SimulationConfig) -> dict[str, Any]:
        return compare(tuning, test, config, training.uses, host=True).model_dump(mode="json")

    found = []
    for name, config in points.items():
        found.append(kept(context, "system", name, partial(at, config)))
        progress(len(found), len(points))
    return found


def trained(context: StudyContext) -> Predictors:
    """The predictors that the study trained."""
    has = {name: name not in context.left_out for name in ("next_use", "learned")}
    return Predictors(
        next_use=NextUsePredictor.load(context.out / NEXT_USE_FILE) if has["next_use"] else None,
        next_layer=NextLayerPredictor.load(context.out / NEXT_LAYER_FILE) if has["learned"] else None,
        distances=(context.config.lookahead,),
    )


def lacks(context: StudyContext) -> str | None:
    """Why the trace cannot be simulated (decode tokens, layers, sizes, …); ``None`` if it can."""
    return (
        needs.test_sequences(context.trace)
        or needs.layers_ahead(context)
        or needs.known_sizes(context)
        or not_decoded(context)
        or _unsimulated(context)
    )


def not_decoded(context: StudyContext) -> str | None:
    """Why the chosen sequences have nothing to time; ``None`` if they have. A trace of prompts alone is decoded."""
    trace = context.trace
    if not has_decode(trace):
        return None
    phase = np.asarray(trace.phase)
    settings = context.config.system
    of_map = "map_tokens" if settings.map_tokens <= settings.tuning_tokens else "tuning_tokens"
    for tokens, tuning_tokens, names in (
        (settings.tokens, settings.tuning_tokens, ("tuning_tokens", "tokens")),
        (settings.map_tokens, settings.map_tuning_tokens, (of_map, "map_tokens")),
    ):
        chosen = chosen_sequences(trace, tokens=tokens, tuning_tokens=tuning_tokens)
        for which, sequences, name in zip(("training", "test"), chosen, names, strict=True):
            if not any((phase[trace.sequence_slice(int(index))] == DECODE).any() for index in sequences):
                return (
                    f"no decode token in the {which} sequences that are simulated; give a trace whose sequences "
                    f"decode, or a larger system.{name} in a TOML file given as --config"
                )
    return None


def _unsimulated(context: StudyContext) -> str | None:
    """What the simulation refuses, and which setting of the study changes it; ``None`` if it refuses nothing."""
    trace = context.trace
    if trace.metadata.has_unrecorded:
        counted = np.asarray(trace.phase) == DECODE if has_decode(trace) else np.ones(trace.tokens, np.bool_)
        if not trace.recorded()[counted].all():
            return "a decode token has no recorded routing in some layer; give a complete recording"

    def check() -> None:
        for share in shares_of(context):
            check_fits(trace, simulation_config(context, share))

    why = needs.refusal(check)
    settings = "system.sizes_of, system.machine, system.capacity_fractions"
    return None if why is None else f"{why} (settings of the study: {settings})"


SUBJECT = Subject(
    Stage("system", "Whole system: policies, and maps of winners", run),
    section,
    title=TITLE,
    lacks=lacks,
    opens=True,
)
