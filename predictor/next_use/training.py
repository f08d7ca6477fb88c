"""Training the next-use head."""

from pathlib import Path

from catalog.progress import Progress
from predictor.next_use.labels import NextUseHead
from predictor.next_use.predictor import NextUsePredictor
from predictor.next_use.recipes import NextUseRecipe
from predictor.next_use.requirements import check_horizons, check_trainable
from predictor.row_network import training
from predictor.row_network.training import Report
from traces import RoutingTrace


def train(
    trace: RoutingTrace,
    recipe: NextUseRecipe,
    *,
    trained_on: str | None = None,
    state_path: Path | None = None,
    progress: Progress | None = None,
    report: Report | None = None,
) -> NextUsePredictor:
    """A predictor trained on ``trace``, asked at its nearest lookahead; arguments as ``row_network.training.train``.

    Raises:
        ForestageError: as ``check_trainable`` and ``row_network.training.train``.
    """
    check_trainable(trace, recipe)
    for part in training.divide(trace, recipe.training):
        check_horizons(part, recipe.predictor.horizons[0] + (recipe.predictor.nearest == 0))
    head = NextUseHead.of(recipe.predictor)
    trained = training.train(
        trace, recipe, head, trained_on=trained_on, state_path=state_path, progress=progress, report=report
    )
    return NextUsePredictor(
        trained.tables, recipe.predictor, top_k=trace.top_k, ranked=trained.ranked, provenance=trained.provenance
    )
