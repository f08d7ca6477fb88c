"""What a file says of itself, held against what the user says of it."""

from collections.abc import Sequence

from catalog import load_catalog
from catalog.catalogue import configuring_option
from catalog.errors import ForestageError
from catalog.names import key, stems_of
from traces.importers.options import ImportOptions
from traces.importers.report import Report


def check_model(options: ImportOptions, stated: str | None, origin: str, report: Report) -> None:
    """Refuse a ``--model`` whose shape the catalogue knows to be another than that of the one a file names.

    Any other takes the place of the file's name (which may be the alias that a server serves it under, a path, or a
    copy of another owner); a warning tells, unless the two differ by no more than owner, tuning, version or weight
    format. The shape is compared wherever the file states it.

    Args:
        options: what the user says.
        stated: the model's name in the file, ``None`` where there is none.
        origin: the file, for the error.
        report: takes the warning.

    Raises:
        ForestageError: naming both.
    """
    given = options.model
    if given is None or stated is None or key(given) in stems_of(stated) or key(stated) in stems_of(given):
        return
    catalog = load_catalog()
    ours, theirs = catalog.match_shape(given), catalog.match_shape(stated)
    if ours is not None and theirs is not None and ours.routing_shape != theirs.routing_shape:
        raise ForestageError(
            f"{origin}: {model_option(given)}: the file says that it is of {stated}; leave the option out"
        )
    if configuring_option(given) is not None:
        report.warn(f"{origin}: the file calls its model {stated}; its shape is that of {model_option(given)}")
        return
    report.warn(f"{origin}: --model {given} takes the place of the file's own {stated}")


def called(options: ImportOptions, stated: str | None) -> str | None:
    """The model's name: the user's, else the file's, else that of the configuration that the user gave."""
    if stated is not None and options.model is not None and configuring_option(options.model) is not None:
        return stated
    return options.model or stated


def model_option(given: str) -> str:
    """The option that named the model ``given``, as the user typed it."""
    return configuring_option(given) or f"--model {given}"


def check_number(option: str, given: int | None, stated: int | None, origin: str) -> None:
    """Refuse a number that is another than the one a file states.

    Args:
        option: as typed (``--top-k``).
        given: what the user says.
        stated: what the file says.
        origin: the file, for the error.

    Raises:
        ForestageError: naming both.
    """
    if given is not None and stated is not None and given != stated:
        raise ForestageError(f"{origin}: {option} {given}: the file says {stated}; leave the option out")


def check_stated(
    options: ImportOptions,
    report: Report,
    *,
    origin: str,
    model: str | None,
    experts: int,
    top_k: int,
    layer_map: Sequence[int],
) -> None:
    """Refuse options that contradict a file which states everything; the model's record must have the experts too.

    Args:
        options: what the user says.
        report: takes the warning of another model's name.
        origin: the file, for errors.
        model: its name in the file, where that is one.
        experts, top_k, layer_map: as the file states them.

    Raises:
        ForestageError: naming the option and both values.
    """
    check_number("--top-k", options.top_k, top_k, origin)
    check_number("--experts", options.experts, experts, origin)
    if options.layers not in (None, tuple(layer_map)):
        raise ForestageError(
            f"{origin}: --layers: the file has layers {', '.join(map(str, layer_map))}; leave the option out"
        )
    record = None if options.model is None else load_catalog().match_shape(options.model)
    if record is not None and record.experts != experts:
        raise ForestageError(f"{origin}: {experts} experts, but {record.name} has {record.experts}; see --model")
    check_model(options, model, origin, report)
