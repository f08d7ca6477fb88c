"""A grid of recipes, trained and measured one after the other: sizes against recall, or what a change is worth."""

import json
import zlib
from collections.abc import Callable, Iterator
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from catalog.config import StrictModel
from catalog.errors import ForestageError, unknown_name
from catalog.files import write_text
from catalog.progress import Progress
from catalog.toml_text import parse_toml, read_text
from predictor import registry
from predictor.measure.evaluate import EvaluationSettings, evaluate, select_parts
from predictor.measure.metrics import recall, tally_predictor
from predictor.measure.ranking import check_limit
from predictor.measure.results import Ends
from predictor.next_layer.predictor import NextLayerPredictor
from predictor.next_layer.recipes import NextLayerRecipe, read_recipe
from predictor.next_layer.requirements import check_trainable
from predictor.next_layer.selection import Selection
from predictor.row_network.file import Validation
from traces import RoutingTrace
from traces.selection import select_sequences

TRACE_FILE = "trace"
"""Which trace a folder's predictors are of; no variant has a file of this name, as theirs have endings."""

RIVAL = "markov-spatial"
"""What every variant is shown against: the best of the kinds that are profiled, on every recorded trace."""


class Variant(StrictModel):
    """One point of a grid.

    Attributes:
        recipe: a named recipe or a TOML file that ``set`` begins from; ``None``: the grid's.
        set: fields of the recipe that differ.
        lookahead: layers ahead; ``None``: the recipe's. Measured is the nearest that is served.
        train: the sequences trained on.
        trained_by: another variant, earlier in the grid, whose predictor is measured instead of training one.
        domains, datasets: the test sequences measured, by label; none named: all.
    """

    recipe: str | None = None
    set: dict[str, Any] = Field(default_factory=dict)
    lookahead: int | None = None
    train: Selection = Selection()
    trained_by: str | None = None
    domains: tuple[str, ...] = ()
    datasets: tuple[str, ...] = ()


class Grid(StrictModel):
    """Variants by name, in the order in which they are trained.

    Attributes:
        about: what the grid shows, a line.
        recipe: what variants begin from.
        issue: issue limits measured.
        variants: by name.
    """

    about: str
    recipe: str = "deployed"
    issue: tuple[int, ...] = (4, 6, 8)
    variants: dict[str, Variant]

    def recipe_of(self, name: str) -> NextLayerRecipe:
        """The recipe of one variant.

        Raises:
            ForestageError: for an unknown field or a value out of range.
        """
        variant = self.variants[name]
        origin = f"variant '{name}'"
        recipe = read_recipe(variant.recipe or self.recipe).replaced(variant.set, origin=origin)
        return recipe if variant.lookahead is None else recipe.at(variant.lookahead, variant.lookahead, origin=origin)


class Measured(BaseModel):
    """One variant, trained and measured on its test sequences.

    Attributes:
        name: of the variant.
        sram_bytes: on chip, the largest layer.
        state_bytes: of a slot and layer.
        far_bytes: read from and written to far memory a token.
        identity: whether it looks at the tokens' identity.
        recall, intervals: by issue limit, over layers ≥ lookahead.
        rival: the same of spatial Markov tables, profiled on the sequences that the variant was trained on.
        exact_set: share of rows whose best top_k are exactly the chosen ones.
        first_layer: recall by limit of layer 0.
        validation: figures on the validation sequences, before and after quantisation.
        epochs: trained.
        training_s: wall time of the epochs.
    """

    model_config = ConfigDict(frozen=True)

    name: str
    variant: Variant
    sram_bytes: int
    state_bytes: int
    far_bytes: int
    identity: bool
    recall: dict[str, float]
    intervals: dict[str, Ends]
    rival: dict[str, float]
    exact_set: float
    first_layer: dict[str, float | None]
    validation: Validation
    epochs: int
    training_s: float


def grid_names() -> tuple[str, ...]:
    """Grids that come with the project."""
    files = resources.files("predictor.next_layer").joinpath("grids").iterdir()
    return tuple(sorted(file.name.removesuffix(".toml") for file in files if file.name.endswith(".toml")))


def read_grid(name_or_path: str) -> Grid:
    """A grid that comes with the project, or the one in a TOML file.

    Raises:
        ForestageError: if it is neither, or faulty.
    """
    if name_or_path in grid_names():
        text = resources.files("predictor.next_layer").joinpath("grids", f"{name_or_path}.toml").read_text("utf-8")
    elif not name_or_path.endswith(".toml"):
        raise unknown_name("grid", name_or_path, grid_names())
    else:
        text = read_text(Path(name_or_path))
    grid = Grid.parse(parse_toml(text, name_or_path), origin=name_or_path)
    before: set[str] = set()
    for name, variant in grid.variants.items():
        grid.recipe_of(name)
        if variant.trained_by is not None and variant.trained_by not in before:
            raise ForestageError(
                f"{name_or_path}: variants.{name}.trained_by: no earlier variant is called '{variant.trained_by}'"
            )
        before.add(name)
    return grid


def run_grid(
    trace: RoutingTrace,
    grid: Grid,
    folder: Path,
    *,
    trace_name: str,
    begin: Callable[[str], None],
    progress: Progress | None = None,
) -> Iterator[Measured]:
    """Train and measure every variant; what ``folder`` already holds of the same grid and trace is taken from there.

    Leaves ``NAME.safetensors`` and ``NAME.json`` of each variant in ``folder``. ``begin(name)`` is called before a
    variant is trained.

    Raises:
        ForestageError: if the folder cannot be written or holds a sweep of another trace, a selection is empty or a
            recipe asks for what the trace lacks.
    """
    _check(trace, grid)
    _claim(folder, trace, trace_name)
    for name, variant in grid.variants.items():
        kept = folder / f"{name}.json"
        request = {
            "trace": trace_name,
            "tokens": trace.tokens,
            "recipe": grid.recipe_of(name).model_dump(mode="json"),
            "variant": variant.model_dump(mode="json"),
            "issue": list(grid.issue),
        }
        measured = _kept(kept, request)
        if measured is None:
            begin(name)
            path = folder / f"{variant.trained_by or name}.safetensors"
            if variant.trained_by is None and not _is_trained(trace, grid, name, path, trace_name):
                _train(trace, grid, name, folder, trace_name, progress)
            measured = _measure(trace, grid, name, path, trace_name)
            write_text(kept, json.dumps({"request": request, "measured": measured.model_dump(mode="json")}, indent=1))
        yield measured


def _check(trace: RoutingTrace, grid: Grid) -> None:
    """Refuse what any variant would be refused for, before the first is trained.

    Raises:
        ForestageError: as ``run_grid``.
    """
    for limit in grid.issue:
        check_limit(limit, trace.experts)
    for name, variant in grid.variants.items():
        select_parts(
            trace,
            EvaluationSettings(issue=grid.issue, domains=variant.domains, datasets=variant.datasets),
        )
        if variant.trained_by is None:
            variant.train.indices(trace)
            check_trainable(trace, grid.recipe_of(name).predictor)


def _claim(folder: Path, trace: RoutingTrace, trace_name: str) -> None:
    """Keep in ``folder`` which trace its predictors are of.

    Raises:
        ForestageError: if they are of another one, whose name may be the same.
    """
    content = 0
    for part in trace.chunks():
        for array in (part.expert_ids, part.token_hash, part.gate_weights):
            content = zlib.crc32(b"" if array is None else np.ascontiguousarray(array).tobytes(), content)
    content = zlib.crc32(np.asarray(trace.sequence_offsets).tobytes(), content)
    path, mine = folder / TRACE_FILE, {"trace": trace_name, "crc32": f"{content:08x}"}
    if not path.is_file():
        write_text(path, json.dumps(mine))
    elif path.read_text(encoding="utf-8", errors="replace") != json.dumps(mine):
        raise ForestageError(f"{folder}: holds a sweep of another trace; give another folder")


def _kept(path: Path, request: dict[str, Any]) -> Measured | None:
    """What an earlier run measured, if it was asked the same."""
    if not path.is_file():
        return None
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        return Measured.model_validate(document["measured"]) if document["request"] == request else None
    except (OSError, ValueError, KeyError, TypeError):
        return None  # damaged: measured anew and overwritten


def _is_trained(trace: RoutingTrace, grid: Grid, name: str, path: Path, trace_name: str) -> bool:
    """Whether ``path`` holds this variant's predictor already, so that it need only be measured."""
    variant, recipe = grid.variants[name], grid.recipe_of(name)
    try:
        predictor = NextLayerPredictor.load(path)
    except ForestageError:
        return False
    asked = (recipe.predictor, recipe.training.model_dump(mode="json"), variant.train.describe(trace, trace_name))
    origin = predictor.provenance
    return asked == (predictor.config, origin.training, origin.trained_on)


def _train(
    trace: RoutingTrace, grid: Grid, name: str, folder: Path, trace_name: str, progress: Progress | None
) -> None:
    from predictor.next_layer.training import train  # PyTorch is needed here alone

    variant = grid.variants[name]
    state = folder / f"{name}.state"
    folder.mkdir(parents=True, exist_ok=True)
    predictor: NextLayerPredictor = train(
        select_sequences(trace, variant.train.indices(trace)),
        grid.recipe_of(name),
        trained_on=variant.train.describe(trace, trace_name),
        state_path=state,
        progress=progress,
    )
    predictor.save(folder / f"{name}.safetensors")
    state.unlink(missing_ok=True)


def _measure(trace: RoutingTrace, grid: Grid, name: str, path: Path, trace_name: str) -> Measured:
    variant = grid.variants[name]
    predictor = NextLayerPredictor.load(path)
    result = evaluate(
        trace, path, trace_name=trace_name, issue=grid.issue, domains=variant.domains, datasets=variant.datasets
    )
    limits = [str(limit) for limit in sorted(set(grid.issue))]
    trainer = grid.variants[variant.trained_by] if variant.trained_by else variant
    figures = predictor.describe()
    provenance = predictor.provenance
    first = result.by_layer[0].recall
    return Measured(
        name=name,
        variant=variant,
        sram_bytes=figures["sram_bytes_per_layer"],
        state_bytes=figures["state_bytes_per_slot_layer"],
        far_bytes=figures["far_bytes_per_token"],
        identity=predictor.config.looks_at_identity,
        recall={limit: result.recall[limit] or 0.0 for limit in limits},
        intervals={limit: result.intervals.recall[limit] for limit in limits},
        rival=_rival(trace, trainer, variant, grid.issue, predictor.lookahead),
        exact_set=result.exact_set or 0.0,
        first_layer={limit: first[limit] for limit in limits},
        validation=provenance.validation,
        epochs=len(provenance.log),
        training_s=sum(entry.seconds for entry in provenance.log),
    )


def _rival(
    trace: RoutingTrace, trainer: Variant, measured: Variant, issue: tuple[int, ...], lookahead: int
) -> dict[str, float]:
    """Recall by limit of the best of the tables that need no training, for the same sequences."""
    profiled = select_sequences(trace, trainer.train.indices(trace))
    rival = registry.fit(RIVAL, profiled, lookahead=lookahead)
    settings = EvaluationSettings(issue=issue, domains=measured.domains, datasets=measured.datasets)
    parts = select_parts(trace, settings)
    found = recall(tally_predictor(rival, parts.evaluated, settings.limits).overall()).over(0).values()
    return {str(limit): float(value) for limit, value in zip(settings.limits, found, strict=False)}
