"""Write a package's folder, and read it back: nothing is used whose digest is not the manifest's."""

import hashlib
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from catalog.errors import ForestageError
from catalog.files import write_text
from gpu_reference.package.manifest import MANIFEST, MOST_BYTES, Manifest, PackedFile, Slice
from predictor.activation.profile import ActivationProfile
from predictor.next_layer.predictor import NextLayerPredictor
from predictor.next_use.predictor import NextUsePredictor
from predictor.policies.material import SPLIT_SEED, Material, digests_of
from predictor.policies.parts import Predictors
from predictor.predictions.digest import trace_digest
from predictor.st_moe import file as st_moe_file
from predictor.st_moe.predictor import StMoePredictor
from traces import RoutingTrace
from traces.safetensors_file import open_tensors, write_tensors

TEST, TUNING, USES = "test.safetensors", "tuning.safetensors", "uses.safetensors"
ST_MOE, ACTIVATION = "st-moe.safetensors", "activation.safetensors"
TRAINED = {"next-use": "next-use.safetensors", "next-layer": "next-layer.safetensors"}
"""The trained predictors: name, and file inside a package."""


def write_package(
    folder: Path,
    material: Material,
    trained: Mapping[str, Path],
    *,
    command: str,
    trace: str,
    texts: Mapping[str, str] | None = None,
) -> Manifest:
    """Write ``material`` into ``folder``, which may hold files already (wheels): they become part of the package.

    Args:
        folder: where to; it must exist.
        material: traces, uses and predictors.
        trained: the trained predictors' files, by the names of `TRAINED`, which are copied.
        command: that makes the package.
        trace: the recorded trace's file name.
        texts: other files, by path inside.

    Raises:
        ForestageError: if a file cannot be written, or all together exceed `MOST_BYTES`; it says what is large.
    """
    material.test.save(folder / TEST)
    material.tuning.save(folder / TUNING)
    write_tensors(folder / USES, {"uses": np.ascontiguousarray(material.uses, "<i8")}, {"format": "forestage-uses"})
    if isinstance(material.predictors.st_moe, StMoePredictor):
        st_moe_file.save(material.predictors.st_moe, folder / ST_MOE)
    if material.predictors.activation is not None:
        material.predictors.activation.save(folder / ACTIVATION)
    for name, path in trained.items():
        shutil.copyfile(path, folder / TRAINED[name])
    for name, text in (texts or {}).items():
        write_text(folder / name, text)
    files = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}
    files.pop(MANIFEST, None)
    _check_size({name: path.stat().st_size for name, path in files.items()})
    predictors = material.predictors
    manifest = Manifest(
        command=command,
        trace=trace,
        model=material.test.metadata.model,
        split_seed=SPLIT_SEED,
        test=_slice(material.test, material.test_sequences),
        tuning=_slice(material.tuning, material.tuning_sequences),
        training_sequences=material.training_sequences,
        distances=predictors.distances,
        activation_distances=predictors.activation_distances,
        prefetched=predictors.prefetched,
        issue_limit=predictors.issue_limit,
        digests=dict(material.digests),
        files={name: PackedFile(bytes=path.stat().st_size, sha256=file_digest(path)) for name, path in files.items()},
    )
    manifest.save(folder)
    return manifest


def load_package(folder: Path) -> Material:
    """What the package ``folder`` holds.

    Raises:
        ForestageError: naming the file that is missing, damaged or of another model.
    """
    manifest = Manifest.load(folder)
    for name, packed in manifest.files.items():
        _check_file(folder / name, packed)
    for name in (TEST, TUNING, USES):
        if name not in manifest.files:
            raise ForestageError(f"{folder / MANIFEST}: files: {name}: missing; make the package again")
    test, tuning = (RoutingTrace.load(folder / name, validate=True) for name in (TEST, TUNING))
    for trace, slice_, field in ((test, manifest.test, "test"), (tuning, manifest.tuning, "tuning")):
        if trace_digest(trace) != slice_.digest or trace.sequences != len(slice_.sequences):
            raise ForestageError(f"{folder / MANIFEST}: {field}: is of another trace; make the package again")
    predictors = _predictors(folder, manifest)
    uses = _uses(folder / USES, test)
    digests = {
        **digests_of(uses, predictors),
        **{name: manifest.files[file].sha256 for name, file in TRAINED.items() if file in manifest.files},
    }
    if digests != manifest.digests:
        wrong = sorted(set(digests.items()) ^ set(manifest.digests.items()))[0][0]
        raise ForestageError(f"{folder / MANIFEST}: digests: {wrong}: not that of the file; make the package again")
    return Material(
        test=test,
        tuning=tuning,
        test_sequences=manifest.test.sequences,
        tuning_sequences=manifest.tuning.sequences,
        training_sequences=manifest.training_sequences,
        uses=uses,
        predictors=predictors,
        digests=digests,
    )


def file_digest(path: Path) -> str:
    """SHA-256 (hex) of a file.

    Raises:
        ForestageError: if it cannot be read.
    """
    try:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise ForestageError(f"{path}: cannot read ({error.strerror})") from error


def _slice(trace: RoutingTrace, sequences: tuple[int, ...]) -> Slice:
    return Slice(sequences=sequences, tokens=trace.tokens, digest=trace_digest(trace))


def _check_size(sizes: Mapping[str, int]) -> None:
    """Raise if the files together are too large, naming the largest."""
    total = sum(sizes.values())
    if total > MOST_BYTES:
        largest = sorted(sizes, key=lambda name: -sizes[name])[:3]
        listed = ", ".join(f"{name} ({sizes[name] / 2**20:.1f} MiB)" for name in largest)
        raise ForestageError(
            f"package: {total / 2**20:.1f} MiB, more than the {MOST_BYTES >> 20} MiB that may travel; the largest: "
            f"{listed}; take fewer --tokens or a smaller predictor"
        )


def _check_file(path: Path, packed: PackedFile) -> None:
    if not path.is_file():
        raise ForestageError(f"{path}: missing, and the manifest lists it; copy or make the package again")
    if path.stat().st_size != packed.bytes or file_digest(path) != packed.sha256:
        raise ForestageError(f"{path}: differs from the manifest; the file is damaged, copy or make the package again")


def _predictors(folder: Path, manifest: Manifest) -> Predictors:
    found = Predictors(
        distances=manifest.distances,
        activation_distances=manifest.activation_distances,
        prefetched=manifest.prefetched,
        issue_limit=manifest.issue_limit,
    )
    if TRAINED["next-use"] in manifest.files:
        found = replace(found, next_use=NextUsePredictor.load(folder / TRAINED["next-use"]))
    if TRAINED["next-layer"] in manifest.files:
        found = replace(found, next_layer=NextLayerPredictor.load(folder / TRAINED["next-layer"]))
    if ST_MOE in manifest.files:
        found = replace(found, st_moe=st_moe_file.load(folder / ST_MOE))
    if ACTIVATION in manifest.files:
        found = replace(found, activation=ActivationProfile.load(folder / ACTIVATION))
    return found


def _uses(path: Path, trace: RoutingTrace) -> NDArray[np.int64]:
    uses = open_tensors(path).tensors.get("uses")
    if uses is None or uses.dtype != np.int64 or uses.shape != (trace.layers, trace.experts) or uses.min() < 0:
        raise ForestageError(f"{path}: uses: missing, or not counts i64 [{trace.layers}, {trace.experts}]")
    return np.array(uses)
