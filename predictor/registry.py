"""Find the kind of a predictor by its name, and load trained predictors from files."""

import os
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from catalog.errors import ForestageError, unknown_name
from predictor.base import Predictor
from predictor.baselines.markov import SpatialMarkovPredictor, TemporalMarkovPredictor
from predictor.baselines.popularity import PopularityPredictor
from predictor.baselines.previous_token import PreviousTokenPredictor
from predictor.learned.predictor import LearnedPredictor
from predictor.st_moe.predictor import StMoePredictor
from traces import RoutingTrace

_KINDS: dict[str, type[Predictor]] = {
    kind.name: kind
    for kind in (
        PopularityPredictor,
        PreviousTokenPredictor,
        SpatialMarkovPredictor,
        TemporalMarkovPredictor,
        StMoePredictor,
        LearnedPredictor,
    )
}

SAVED_SUFFIX = ".safetensors"


@runtime_checkable
class Saved(Protocol):
    """What a predictor loaded from a file has beside the members of ``Predictor``."""

    @property
    def trained_on(self) -> str:
        """The sequences and the trace on which it was trained, in words."""

    @property
    def model(self) -> str:
        """The model on whose routing it was trained, as its trace named it."""

    def describe(self) -> dict[str, Any]:
        """Its configuration and size in bytes, as JSON values."""


class Loadable(Protocol):
    """A kind that is trained once and kept in a file."""

    @classmethod
    def load(cls, path: Path) -> Predictor:
        """The predictor in the file ``path``; raises ForestageError if it holds none."""


def names() -> tuple[str, ...]:
    """Names of all kinds, in the order in which reports list them."""
    return tuple(_KINDS)


def profiled_names() -> tuple[str, ...]:
    """Names of the kinds that are profiled in seconds, which a comparison fits itself; the others are loaded."""
    return tuple(name for name, kind in _KINDS.items() if not hasattr(kind, "load"))


def kind(name: str) -> type[Predictor]:
    """The class of the predictor called ``name``.

    Raises:
        ForestageError: naming the nearest known name.
    """
    if name not in _KINDS:
        raise unknown_name("predictor", name, _KINDS)
    return _KINDS[name]


def profiled_kind(name: str) -> type[Predictor]:
    """The class of the predictor called ``name``, if it is a kind that is profiled in seconds.

    Raises:
        ForestageError: naming the nearest known name, or how to train one.
    """
    chosen = kind(name)
    if hasattr(chosen, "load"):
        raise ForestageError(
            f"{name}: is trained once: run `forestage predictor train`, then give the file that it writes"
        )
    return chosen


def fit(name: str, trace: RoutingTrace, *, lookahead: int = 1, parameters: dict[str, Any] | None = None) -> Predictor:
    """Fit the predictor called ``name`` to a training trace.

    Raises:
        ForestageError: for an unknown name or parameter (the error names the nearest known one), a value out of range,
            or a kind that must be trained and loaded.
    """
    chosen = profiled_kind(name)
    # Check the parameters before the profile is computed.
    chosen.parameters_model.parse(parameters or {}, origin=f"predictor '{name}'")
    return chosen.fit(trace, lookahead=lookahead, **(parameters or {}))


def is_saved(name: str | Path) -> bool:
    """Whether ``name`` means a file: a path, a name ending in ``.safetensors``, or an existing file; no kind's name."""
    if isinstance(name, Path):
        return True
    if name in _KINDS:
        return False
    path = Path(name)
    return os.sep in name or path.suffix == SAVED_SUFFIX or path.is_file()


def load(path: str | Path) -> Predictor:
    """The trained predictor in the file ``path``.

    Raises:
        ForestageError: if there is no such file, or it does not hold a predictor.
    """
    path = Path(path)
    if not path.is_file():
        raise ForestageError(f"{path}: no such file; give a predictor that was trained, or one of {', '.join(_KINDS)}")
    if path.suffix in (".npz", ".parquet"):
        raise ForestageError(
            f"{path}: no trained predictor, which is a {SAVED_SUFFIX}; give predictions by --predictions"
        )
    (loadable,) = (kind for kind in _KINDS.values() if hasattr(kind, "load"))
    return loadable.load(path)


def load_or_fit(
    name: str | Path,
    trace: RoutingTrace,
    *,
    lookahead: int | None = None,
    parameters: dict[str, Any] | None = None,
) -> Predictor:
    """The predictor that ``name`` means: loaded if it is a file (``is_saved``), else that kind fitted to ``trace``.

    Args:
        name: name of a kind, or a file.
        trace: the trace on which a kind is profiled; not used for a file.
        lookahead: layers ahead; ``None``: a file's own, 1 for a kind.
        parameters: parameters of a kind.

    Raises:
        ForestageError: as ``fit`` and ``load``; also if ``lookahead`` or ``parameters`` differ from those with which
            the file was trained.
    """
    if not is_saved(name):
        return fit(str(name), trace, lookahead=1 if lookahead is None else lookahead, parameters=parameters)
    if parameters:
        raise ForestageError(
            f"{name}: {next(iter(parameters))} cannot be set; a trained predictor keeps its parameters"
        )
    predictor = load(name)
    if lookahead not in (None, predictor.lookahead):
        raise ForestageError(
            f"{name}: trained for lookahead {predictor.lookahead}, not {lookahead}; ask for its own, or train anew"
        )
    return predictor


def resolved_parameters(name: str, parameters: dict[str, Any] | None = None) -> dict[str, Any]:
    """``parameters`` with the kind's defaults filled in, as JSON values.

    Raises:
        ForestageError: as ``fit``.
    """
    model = kind(name).parameters_model.parse(parameters or {}, origin=f"predictor '{name}'")
    return model.model_dump(mode="json")
