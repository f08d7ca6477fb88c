"""Determine the model of a recording whose file does not state it."""

from collections.abc import Sequence
from dataclasses import dataclass

from catalog import ModelRecord, load_catalog
from catalog.errors import ForestageError
from traces.importers.assembly.stated import called, check_model, check_number
from traces.importers.options import ImportOptions
from traces.importers.report import Report


@dataclass(frozen=True)
class RecordedModel:
    """The model and layers of a recording.

    Attributes:
        name: the model's name.
        experts: routed experts per layer.
        kept_layers: indices of the recorded layers with routing (the others are dense), ascending.
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
    """The model and layers of a recording, from the file, the user's options and the catalogue.

    Layers are determined by the first of these that applies: the file's own indices, unless they count from 0 without a
    gap and so may number only the MoE layers; ``--layers``; the model's MoE layers, if the recording has as many layers
    as the model has MoE layers, or as it has layers in all (then the dense ones are empty); else the used layers, by
    their place in the recording. A warning tells what does not rest on a name, and what was left out or cut.

    Args:
        options: the user's options.
        report: takes the warnings.
        origin: the file, for errors.
        layers: length of the recording's layer axis.
        top_k: ids per row; ``None`` if the recording has none (loads).
        used_layers: layers in which anything was recorded.
        name: the model's name in the file, if there is one; ``--model`` takes its place (``stated.check_model``).
        experts: routed experts per layer, if the file states them.
        layer_map: the model's index of each layer on the axis, if the file states it.
        written_for: first part of the names of the models whose code writes the format; among several models with the
            recording's shape, such a model is taken.
        has_dense: whether the format has all of the model's layers on its axis, so that an empty one must be dense.

    Raises:
        ForestageError: if something is missing that an option can give, or two sources contradict each other.
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
    """Refuse layers that the model lacks or that are dense in it."""
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
    """Warn if only the shape determined the model, or if it was run with another top-k than its own."""
    if options.model is None and not named:
        report.warn(
            f"{origin}: names no model; taken for {record.name} by its {layers} MoE layers (--model, if it is another)"
        )
    if options.top_k not in (None, record.top_k):
        report.warn(f"{origin}: --top-k {options.top_k}: {record.name} uses {record.top_k}; taken as a run cut to it")


def _tell_empty(report: Report, origin: str, layers: int, kept: Sequence[int]) -> None:
    """Warn of empty layers of an unknown model, which are taken for dense ones."""
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
    """The catalogue's record of the given name; without a name, all records of the shape."""
    catalog = load_catalog()
    if options.model is not None:
        # An unknown model is accepted if its number of experts is known.
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
    """The layers of the axis that are kept, and the model's index of each."""
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
