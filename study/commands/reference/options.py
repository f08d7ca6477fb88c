"""Options of the commands of ``forestage reference`` that decode."""

from pathlib import Path
from typing import Annotated

import typer

from predictor.policies.material import TEST_TOKENS

DecodedTraceOption = Annotated[
    Path | None,
    typer.Option("--trace", help="A routing trace, in any format that `trace import` reads; its test part is decoded"),
]
PackageOption = Annotated[
    Path | None, typer.Option("--package", help="A folder that `forestage reference pack` wrote, in place of --trace")
]
TestSliceOption = Annotated[
    int | None,
    typer.Option(
        "--tokens", min=1, help=f"Of the trace's test sequences so many tokens, about; default: {TEST_TOKENS}"
    ),
]
DistanceOption = Annotated[
    list[int] | None,
    typer.Option("--distance", min=1, help="Layers ahead that --predictor looks; several times; default: 1"),
]
