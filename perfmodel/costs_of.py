"""The costs of a trace's routing under a configuration: whose sizes, on which machine, in which of its layers."""

from catalog.catalogue import Catalog, load_catalog
from catalog.errors import ForestageError, SettingError
from catalog.models import ModelRecord
from perfmodel.config import SimulationConfig
from perfmodel.costs import CostModel, SimulatedLayers
from perfmodel.in_memory import ExpertMemory
from traces import RoutingTrace


def resolve_costs(
    trace: RoutingTrace, config: SimulationConfig, catalog: Catalog | None = None
) -> tuple[CostModel, SimulatedLayers]:
    """The costs that ``config`` and ``trace`` define, and which of the model's layers run.

    Raises:
        ForestageError: if model or machine is unknown, or the sizes are of a model of another shape and
            ``allow_other_shape`` was not given.
    """
    catalog = load_catalog() if catalog is None else catalog
    machine = catalog.machines.find(config.machine)
    if config.sizes_of is None:
        model = catalog.match_model(trace.metadata.model)
        if model is None:
            raise ForestageError(
                f"simulation: sizes_of: the trace's model '{trace.metadata.model}' is not in the catalogue; "
                f"name one of {', '.join(catalog.models.names())}"
            )
    else:
        model = catalog.find_model(config.sizes_of)
    _check_sizes(trace, model, config)
    layers = SimulatedLayers.of(model, trace.metadata.layer_map, own=config.sizes_of is None)
    return CostModel(model, machine, config.link_gb_per_s), layers


def check_fits(trace: RoutingTrace, config: SimulationConfig) -> None:
    """Refuse, before any work, a configuration whose sizes are not known or that does not fit the trace.

    Raises:
        ForestageError: as `resolve_costs`, `SimulationConfig.capacity` and `ExpertMemory.of`, or where an expert's size
            is not known.
    """
    costs, _ = resolve_costs(trace, config)
    config.capacity(layers=trace.layers, experts=trace.experts, expert_bytes=costs.expert_bytes)
    if config.in_memory is not None:
        ExpertMemory.of(config.in_memory, costs)


def _check_sizes(trace: RoutingTrace, model: ModelRecord, config: SimulationConfig) -> None:
    recorded, sizes = (trace.experts, trace.top_k), (model.experts, model.top_k)
    # A model may have been run with another top_k than its own; its sizes are still its own.
    agree = trace.experts == model.experts if config.sizes_of is None else recorded == sizes
    if not agree and not config.allow_other_shape:
        differ = (
            f"the trace has (experts, top_k) = {recorded}, {model.name} has {sizes}; name a model of the same shape"
        )
        raise SettingError("sizes_of", differ, message=f"simulation: sizes_of: {differ}, or set allow_other_shape")
