"""What is decoded: from a trace with trained predictors, or from a package."""

from pathlib import Path

from catalog.errors import ForestageError
from gpu_reference.package.folder import file_digest, load_package
from predictor.next_layer.predictor import NextLayerPredictor
from predictor.next_use.predictor import NextUsePredictor
from predictor.policies.material import TEST_TOKENS, TUNING_TOKENS, Material, material_of
from predictor.policies.parts import Predictors
from study.commands.command import refuse_unused
from study.commands.opening import open_trace


def trained_files(next_use: Path | None, predictor: Path | None) -> dict[str, Path]:
    """The files that were given, by the names under which records and packages know them."""
    named = {"next-use": next_use, "next-layer": predictor}
    return {name: path for name, path in named.items() if path is not None}


def material_at(
    *,
    trace: Path | None,
    package: Path | None,
    next_use: Path | None = None,
    predictor: Path | None = None,
    distances: list[int] | None = None,
    tokens: int | None = None,
    tuning_tokens: int = TUNING_TOKENS,
    model: str | None = None,
) -> Material:
    """What is decoded, of a ``package`` or of a ``trace``; the options of a command that has both.

    Args:
        trace, model: a recording, and the model whose routing it is where the recording does not say.
        package: a folder in its place; then nothing else is given.
        next_use, predictor: files of trained predictors.
        distances: layers ahead that ``predictor`` is asked.
        tokens, tuning_tokens: of the slices, about.

    Raises:
        ForestageError: unless one of the two is given, or where a file is not what it should be.
    """
    if (trace is None) == (package is None):
        raise ForestageError("--trace, --package: give one of the two")
    if package is not None:
        refuse_unused(
            "the package has its own; leave it out",
            next_use="--next-use",
            predictor="--predictor",
            distance="--distance",
            tokens="--tokens",
            model="--model",
        )
        return load_package(package)
    assert trace is not None, "one of the two"
    files = trained_files(next_use, predictor)
    predictors = Predictors(
        next_use=None if next_use is None else NextUsePredictor.load(next_use),
        next_layer=None if predictor is None else NextLayerPredictor.load(predictor),
        distances=tuple(sorted(set(distances or [1]))),
    )
    recorded = open_trace(trace, model)
    digests = {name: file_digest(path) for name, path in files.items()}
    return material_of(
        recorded,
        predictors,
        digests,
        test_tokens=TEST_TOKENS if tokens is None else tokens,
        tuning_tokens=tuning_tokens,
    )
