"""Which model a recording is of, where its file does not say."""

from collections.abc import Sequence
from dataclasses import dataclass

from catalog import ModelRecord, load_catalog
from catalog.errors import ForestageError
from traces.importers.assembly.stated import called, check_model, check_number
from traces.importers.options import ImportOptions
from traces.importers.report import Report


@dataclass(frozen=True)
class RecordedModel:
    """What a recording is of.

    Attributes:
        name: the model's name.
        experts: routed experts a layer.
        kept_layers: which of the recorded layers hold routing (the others are dense), ascending.
        layer_map: the model's index of each kept layer.
    """

    name: str
    experts: int
    kept_layers: tuple[int, ...]
    layer_map: tuple[int, ...]


def recorded_model(
    options: ImportOptions,
    report: Report,
    *,
    origin: str,
    layers: int,
    top_k: int | None,
    used_layers: Sequence[int],
    name: str | None = None,
    experts: int | None = None,
    layer_map: Sequence[int] | None = None,
    written_for: str = "",
    has_dense: bool = False,
) -> RecordedModel:
    """What a recording is of, from what the file says, what the user says and what the catalogue knows.

    Layers are told in this order: the file's own indices, unless they count from 0 without a gap and so may count the
    MoE layers alone; ``--layers``; the model's MoE layers where the recording has as many layers as the model has MoE
    layers, or as it has layers in all (the dense ones then hold nothing); else the used layers, by their place in the
    recording. What rests on no name, and what was left out or cut, is told.

    Args:
        options: what the user says.
        report: takes the warnings.
        origin: the file, for errors.
        layers: on the recording's layer axis.
        top_k: ids a row; ``None`` where the recording has none (loads).
        used_layers: layers in which anything was recorded.
        name: the model's name in the file, if there is one; ``--model`` takes its place (``stated.check_model``).
        experts: routed experts a layer, where the file says.
        layer_map: the model's index of each layer on the axis, where the file says.
        written_for: how the names of the models begin whose code writes the format; of several models of the
            recording's shape, it is theirs.
        has_dense: the format has all of the model's layers on its axis, so that an empty one is known to be dense.

    Raises:
        ForestageError: if something is missing that an option would give, or two sources contradict each other.
    """
    used = tuple(used_layers)
    check_model(options, name, origin, report)
    if layer_map is not None and tuple(layer_map) == tuple(range(layers)):
        layer_map = None
    if not used:
        raise ForestageError(f"{origin}: every layer is empty; nothing was recorded")
    if options.top_k is not None and top_k is not None and options.top_k != top_k:
        raise ForestageError(f"{origin}: --top-k {options.top_k}: the file holds {top_k} ids a row")
    check_number("--experts", options.experts, experts, origin)
    stated = experts if experts is not None else options.experts
    fitting = _records(options, name, layers, len(used), top_k, stated, written_for)
    record = fitting[0] if len(fitting) == 1 else None
    label = called(options, name) or (record.name if record else None)
    if label is None:
        shape = f"{len(used)} MoE layers" + (f" of top-{top_k}" if top_k is not None else "")
        names = ", ".join(found.name for found in fitting[:6]) + (" …" if len(fitting) > 6 else "")
        several = f"{len(fitting)} models of the catalogue have {shape} ({names})"
        known = several if fitting else f"not one model of the catalogue has {shape}"
        raise ForestageError(
            f"{origin}: the file names no model, and {known}; name it with --model (and --experts where the catalogue "
            "does not know it, or describe it with --config config.json)"
        )
    if record is not None:
        if stated is not None and stated != record.experts:
            raise ForestageError(f"{origin}: {stated} experts, but {record.name} has {record.experts}; see --model")
        if top_k is not None and options.top_k is None and top_k != record.top_k:
            raise ForestageError(
                f"{origin}: {top_k} ids a row, but {record.name} uses {record.top_k}; name the right model with --model"
                + (f", or import it with --top-k {top_k} if the run was cut to it" if top_k < record.top_k else "")
            )
        stated = record.experts
    if stated is None:
        raise ForestageError(
            f"{origin}: experts: the file does not say, and the catalogue does not know {label}; import it "
            "with --experts, or with --config config.json, or, if it is a served name, name the model with --model"
        )
    kept, indices = _layers(options, origin, layers, used, record, layer_map)
    if record is None and not has_dense and options.layers is None:
        _tell_empty(report, origin, layers, kept)
    elif record is not None:
        _check_layers(record, indices, origin)
        _tell_shape(options, report, origin, record, len(indices), named=name is not None)
    return RecordedModel(label, stated, kept, indices)


def _check_layers(record: ModelRecord, indices: Sequence[int], origin: str) -> None:
    """Refuse layers that the model lacks, or that are dense in it."""
    stray = set(indices) - set(record.layer_map)
    if stray:
        raise ForestageError(
            f"{origin}: layer {min(stray)} is none of the {record.moe_layers} MoE layers of {record.name} "
            f"({record.layer_map[0]} to {record.layer_map[-1]}); name the right model with --model, or the model's "
            "own indices with --layers"
        )


def _tell_shape(
    options: ImportOptions, report: Report, origin: str, record: ModelRecord, layers: int, *, named: bool
) -> None:
    """Warn where the model was told by its shape alone, or was run with another top-k than its own."""
    if options.model is None and not named:
        report.warn(
            f"{origin}: names no model; taken for {record.name} by its {layers} MoE layers (--model, if it is another)"
        )
    if options.top_k not in (None, record.top_k):
        report.warn(f"{origin}: --top-k {options.top_k}: {record.name} uses {record.top_k}; taken as a run cut to it")


def _tell_empty(report: Report, origin: str, layers: int, kept: Sequence[int]) -> None:
    """Warn of layers of an unknown model that hold nothing, and are taken for dense ones."""
    empty = sorted(set(range(layers)) - set(kept))
    if empty:
        named = ", ".join(map(str, empty[:4])) + (f" and {len(empty) - 4} more" if len(empty) > 4 else "")
        report.warn(
            f"{origin}: layers {named} of {layers} hold nothing but zeros; they are taken for layers without experts "
            "(--layers names those that have them)"
        )


def _records(
    options: ImportOptions,
    name: str | None,
    layers: int,
    used: int,
    top_k: int | None,
    experts: int | None,
    written_for: str,
) -> list[ModelRecord]:
    """The catalogue's record of the name given; without a name, all records of that shape."""
    catalog = load_catalog()
    if options.model is not None:
        # A model of one's own is welcome where its experts are known.
        record = catalog.match_shape(options.model) if experts is not None else catalog.find_shape(options.model)
        return [record] if record is not None else []
    if name is not None:
        record = catalog.match_shape(name)
        return [record] if record is not None else []
    fitting = [
        record
        for record in catalog.models
        if layers in (record.moe_layers, record.layers)
        and used <= record.moe_layers
        and top_k in (None, record.top_k)
        and experts in (None, record.experts)
    ]
    theirs = [record for record in fitting if written_for and record.name.startswith(written_for)]
    return theirs if len(theirs) == 1 else fitting


def _layers(
    options: ImportOptions,
    origin: str,
    layers: int,
    used: tuple[int, ...],
    record: ModelRecord | None,
    layer_map: Sequence[int] | None,
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Which layers of the axis are kept, and the model's index of each."""
    everything = tuple(range(layers))
    if layer_map is not None:
        if options.layers not in (None, tuple(layer_map)):
            raise ForestageError(
                f"{origin}: --layers: the file names its layers, {', '.join(map(str, layer_map))}; leave the option out"
            )
        kept, indices = everything, tuple(layer_map)
    elif options.layers is not None:
        kept = everything if len(options.layers) == layers else used
        if len(options.layers) != len(kept):
            raise ForestageError(
                f"{origin}: --layers names {len(options.layers)}, but the file holds {layers}, {len(used)} of them used"
            )
        indices = options.layers
    elif record is not None and layers == record.moe_layers:
        kept, indices = everything, record.layer_map
    elif record is not None and layers == record.layers:
        kept = indices = record.layer_map
        dense = set(used) - set(record.layer_map)
        if dense:
            raise ForestageError(
                f"{origin}: layer {min(dense)} holds routing, but it is dense in {record.name}; name the right model "
                "with --model"
            )
    elif record is not None:
        raise ForestageError(
            f"{origin}: {layers} layers, but {record.name} has {record.layers}, {record.moe_layers} of them with "
            "experts; name the right model with --model, or the recorded layers with --layers"
        )
    else:
        kept = indices = used
    return kept, indices
