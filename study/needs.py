"""Check what the stages of a study need of a trace: why one is left out, and what to do about it."""

from collections.abc import Callable
from typing import Any

from catalog import load_catalog
from catalog.errors import ForestageError
from study.stages import StudyContext
from traces import RoutingTrace, split


def refusal(check: Callable[..., Any], *arguments: Any, **options: Any) -> str | None:
    """The message with which ``check`` refuses its arguments; ``None`` if it accepts them."""
    try:
        check(*arguments, **options)
    except ForestageError as error:
        return str(error)
    return None


def test_sequences(trace: RoutingTrace) -> str | None:
    """Why the trace lacks test or training sequences; ``None`` if it has both."""
    train, test = split(trace)
    if not len(test):
        return (
            "the trace has no test sequences, which are a fifth of every dataset's of at least two; give one of more "
            "sequences"
        )
    if not len(train):
        return "the trace has no training sequences; give one of more sequences"
    return None


def layers_ahead(context: StudyContext) -> str | None:
    """Why the trace has too few layers for the lookahead; ``None`` if it has enough."""
    layers = context.trace.layers
    if layers <= context.config.lookahead:
        return f"the trace has {layers} MoE layer{'s' * (layers != 1)}, so no gate is known a layer ahead"
    return None


def known_sizes(context: StudyContext) -> str | None:
    """Why no catalogue model's weight sizes can be used; ``None`` if one's can."""
    trace, wanted = context.trace, context.config.system.sizes_of
    if wanted is not None:
        return None
    alike = [m.name for m in load_catalog().models if (m.experts, m.top_k) == (trace.experts, trace.top_k)]
    shaped = f"of the trace's shape are {', '.join(alike)}" if alike else "none there has the trace's shape"
    return (
        f"the catalogue does not know {trace.metadata.model}; name a model whose weight sizes to take as "
        f"system.sizes_of in a TOML file given as --config ({shaped})"
    )
