"""What travels to a GPU machine is read back as it was, or not at all."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from catalog.errors import ForestageError
from gpu_reference.package import folder as package
from gpu_reference.package import load_package, write_package
from predictor.policies.material import Material, material_of
from predictor.policies.parts import Predictors
from tests.learned_samples import random_next_use, random_predictor
from tests.routing import trace_of


def packed(tmp_path: Path, texts: Mapping[str, str] | None = None) -> tuple[Path, Material]:
    """A package, and what went into it."""
    generator = np.random.default_rng(0)
    ids = generator.permuted(np.tile(np.arange(8), (160, 3, 1)), axis=2)[:, :, :2]
    hashes = generator.integers(8, 12, 160).astype(np.uint32)
    trace = replace(trace_of(ids, experts=8, lengths=[4] * 40), token_hash=hashes)
    files = {"next-use": tmp_path / "use", "next-layer": tmp_path / "layer"}
    next_use = random_next_use(generator, layers=3, experts=8, top_k=2)
    next_layer = random_predictor(layers=3, experts=8, top_k=2)
    next_use.save(files["next-use"])
    next_layer.save(files["next-layer"])
    material = material_of(
        trace,
        Predictors(next_use=next_use, next_layer=next_layer, distances=(1, 2), prefetched=3, issue_limit=2),
        {name: package.file_digest(path) for name, path in files.items()},
        test_tokens=8,
        tuning_tokens=8,
    )
    out = tmp_path / "package"
    out.mkdir()
    write_package(out, material, files, command="pack", trace="a.npz", texts=texts)
    return out, material


def test_a_package_is_read_back_as_it_was(tmp_path: Path) -> None:
    out, material = packed(tmp_path)
    found = load_package(out)
    assert found.test.equals(material.test)
    assert found.tuning.equals(material.tuning)
    assert np.array_equal(found.uses, material.uses)
    assert found.digests == material.digests
    for name in ("test_sequences", "tuning_sequences", "training_sequences"):
        assert getattr(found, name) == getattr(material, name)
    mine, theirs = found.predictors, material.predictors
    assert (mine.distances, mine.prefetched, mine.issue_limit) == ((1, 2), 3, 2)
    for name in ("next_use", "next_layer", "st_moe"):
        one, other = getattr(mine, name), getattr(theirs, name)
        scores = [np.concatenate([part for _, part in asked.score_chunks(found.test)]) for asked in (one, other)]
        assert np.array_equal(*scores), name
    assert mine.activation is not None
    assert theirs.activation is not None
    assert np.array_equal(mine.activation.counts, theirs.activation.counts)
    assert mine.activation_distances == theirs.activation_distances


def test_a_package_is_the_same_whenever_it_is_made(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    one, other = (packed(tmp_path / name)[0] for name in ("a", "b"))
    assert (one / "manifest.json").read_bytes() == (other / "manifest.json").read_bytes()


@pytest.mark.parametrize("name", ["test.safetensors", "activation.safetensors", "wheels/a.whl"])
def test_a_damaged_or_missing_file_is_refused(tmp_path: Path, name: str) -> None:
    out, _ = packed(tmp_path, {"wheels/a.whl": "text"})
    content = bytearray((out / name).read_bytes())
    content[-1] ^= 1
    (out / name).write_bytes(content)
    with pytest.raises(ForestageError, match=f"{name}: differs from the manifest"):
        load_package(out)
    (out / name).unlink()
    with pytest.raises(ForestageError, match=f"{name}: missing"):
        load_package(out)


def test_a_manifest_that_is_of_other_files_is_refused(tmp_path: Path) -> None:
    out, _ = packed(tmp_path)
    values = json.loads((out / "manifest.json").read_text())

    def refused(match: str, **changes: object) -> None:
        (out / "manifest.json").write_text(json.dumps({**values, **changes}))
        with pytest.raises(ForestageError, match=match):
            load_package(out)

    refused("test: is of another trace", test={**values["test"], "digest": "0" * 64})
    refused("tuning: is of another trace", tuning={**values["tuning"], "sequences": [0]})
    refused("digests: uses: not that of the file", digests={**values["digests"], "uses": "0" * 64})
    refused("schema_version: 2", schema_version=2)
    refused("unknown key 'more'", more=1)
    outside = {**values["files"], "../a": values["files"]["test.safetensors"]}
    refused("no path inside the package", files=outside)
    refused(
        "tuning.safetensors: missing", files={k: v for k, v in values["files"].items() if k != "tuning.safetensors"}
    )


def test_a_folder_that_is_no_package_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ForestageError, match=r"no package: it has no manifest\.json"):
        load_package(tmp_path)


def test_what_is_too_large_is_refused_and_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(package, "MOST_BYTES", 1 << 20)
    with pytest.raises(ForestageError, match=r"package: 2\.\d MiB, more than the 1 MiB .* wheels/a\.whl \(2\.0 MiB\)"):
        packed(tmp_path, {"wheels/a.whl": "x" * (2 << 20)})
