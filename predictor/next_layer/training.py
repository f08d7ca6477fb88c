"""Training the next-layer head."""

from pathlib import Path

from catalog.progress import Progress
from predictor.next_layer.labels import NextLayerHead
from predictor.next_layer.predictor import NextLayerPredictor
from predictor.next_layer.recipes import NextLayerRecipe
from predictor.next_layer.requirements import check_trainable
from predictor.row_network import training
from predictor.row_network.training import Report
from traces import RoutingTrace


def train(
    trace: RoutingTrace,
    recipe: NextLayerRecipe,
    *,
    trained_on: str | None = None,
    state_path: Path | None = None,
    progress: Progress | None = None,
    report: Report | None = None,
) -> NextLayerPredictor:
    """A predictor trained on ``trace``, asked at its nearest lookahead; arguments as ``row_network.training.train``.

    Raises:
        ForestageError: as ``check_trainable`` and ``row_network.training.train``.
    """
    check_trainable(trace, recipe.predictor)
    head = NextLayerHead.of(recipe, experts=trace.experts, top_k=trace.top_k)
    trained = training.train(
        trace, recipe, head, trained_on=trained_on, state_path=state_path, progress=progress, report=report
    )
    return NextLayerPredictor(
        trained.tables,
        recipe.predictor,
        top_k=trace.top_k,
        ranked=trained.ranked,
        provenance=trained.provenance,
    )
