"""Expert popularity, JSON: ``{"expert_popularity": [layers][experts]}``, how often each expert was chosen.

Offloading studies of Mixtral write it (one file per subject, with ``total_input_tokens`` beside it); their simulators
divide a layer's values by their sum. So values are only relative to each other within a layer: the file does not state
whether they are counts, shares, or counts divided by the largest. They are kept unchanged.
"""

from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import BaseModel, Field, ValidationError

from catalog.config import describe_validation_error
from catalog.errors import ForestageError
from traces.expert_load import ExpertLoad
from traces.importers.assembly.expert_loads import build_load
from traces.importers.assembly.text_file import open_text
from traces.importers.importer import Importer
from traces.importers.options import ImportOptions
from traces.importers.report import Report

KEY = b'"expert_popularity"'
MAX_CHARACTERS = 1 << 28

Share = Annotated[float, Field(ge=0, allow_inf_nan=False, strict=True)]


class Popularity(BaseModel):
    """The file; other keys are ignored."""

    expert_popularity: list[list[Share]] = Field(min_length=1)


def sniff(path: Path, start: bytes) -> bool:
    """A JSON object with the format's key near its beginning."""
    del path
    return start.lstrip().startswith(b"{") and KEY in start


def read(path: Path, options: ImportOptions, report: Report) -> ExpertLoad:
    """The popularity, as one step.

    Raises:
        ForestageError: if the file is not such an object, its layers differ in experts, or the model is not known.
    """
    with open_text(path) as (text, _):
        document = text.read(MAX_CHARACTERS)
    try:
        layers = Popularity.model_validate_json(document).expert_popularity
    except ValidationError as error:
        raise ForestageError(f"{path}: {describe_validation_error(Popularity, error)}") from error
    for layer, values in enumerate(layers):
        if len(values) != len(layers[0]) or not values:
            raise ForestageError(
                f"{path}: expert_popularity.{layer}: {len(values)} experts; layer 0 has {len(layers[0])}"
            )
    counts = np.array(layers)[None]
    load = build_load(
        counts, path, options, report, source="expert popularity (relative within a layer, no counts)", relative=True
    )
    report.warn(
        f"{path}: popularity is relative within a layer and no number of tokens: sums, and layers beside each other, "
        "mean nothing"
    )
    return load


IMPORTER = Importer(
    "expert_popularity",
    "expert popularity, JSON {expert_popularity: [layers][experts]} (loads only)",
    sniff,
    read,
    uses=frozenset({"model", "experts", "top_k", "layers"}),
)
