"""Files of named arrays."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import save

from catalog.errors import ForestageError
from traces.importers.assembly.array_file import UNNAMED, read_arrays

ARRAY = np.arange(6).reshape(2, 3)


def content(kind: str, name: str) -> bytes:
    """A file of that kind with ``ARRAY`` under ``name``."""
    file = io.BytesIO()
    if kind == "json":
        return json.dumps({name: ARRAY.tolist()}).encode()
    if kind == "safetensors":
        return save({name: ARRAY})
    if kind == "npz":
        np.savez(file, allow_pickle=False, **{name: ARRAY})
    else:
        torch.save({name: torch.from_numpy(ARRAY)}, file)
    return file.getvalue()


@pytest.mark.parametrize("kind", ["json", "safetensors", "npz", "pt"])
def test_an_array_with_an_empty_name_is_not_one_without(kind: str, tmp_path: Path) -> None:
    path = tmp_path / f"arrays.{kind}"
    path.write_bytes(content(kind, "weight"))
    np.testing.assert_array_equal(read_arrays(path)["weight"], ARRAY)
    path.write_bytes(content(kind, ""))
    with pytest.raises(ForestageError, match=r"arrays\.\w+: an array whose name is empty; name it"):
        read_arrays(path)


def test_one_array_alone_has_no_name(tmp_path: Path) -> None:
    path = tmp_path / "array"
    np.save(path, ARRAY)
    torch.save(torch.from_numpy(ARRAY), tmp_path / "array.pt")
    (tmp_path / "array.json").write_text(json.dumps(ARRAY.tolist()))
    for file in ("array.npy", "array.pt", "array.json"):
        found = read_arrays(tmp_path / file)
        assert list(found) == [UNNAMED]
        np.testing.assert_array_equal(found[UNNAMED], ARRAY)


def test_json_that_names_an_array_twice_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "arrays.json"
    path.write_text('{"weight": [[1, 2]], "weight": [[2, 1]]}')
    with pytest.raises(ForestageError, match=r"arrays\.json: not valid JSON \('weight' comes twice in an object\)"):
        read_arrays(path)
