"""PyTorch's files: only tensors and plain values are ever made from one, and nothing is run."""

import builtins
import os
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from catalog.errors import ForestageError
from traces.importers import import_recording, sniff_format
from traces.importers.assembly import torch_file

torch = pytest.importorskip("torch", reason="writes .pt files")


class Hostile:
    """Runs a command where it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.marker),)


@pytest.mark.parametrize("where", ["alone", "in a recording", "in the map"])
def test_a_hostile_pickle_is_refused_and_does_not_run(where: str, tmp_path: Path) -> None:
    marker = tmp_path / "was-run"
    path = tmp_path / "recording_0.pt"
    record: dict[str, Any] = {"forward_pass_id": 0, "positions": [0]}
    value: Any = {
        "alone": Hostile(marker),
        "in a recording": {"records": [{**record, "misc_objects": [Hostile(marker)]}]},
        "in the map": {"records": [record], "last_physical_to_logical_map": Hostile(marker)},
    }[where]
    torch.save(value, path)
    with pytest.raises(ForestageError, match=r"recording_0\.pt: refused: ") as caught:
        import_recording(path, "sglang_per_token")
    assert "\n" not in str(caught.value)
    assert "weights_only" not in str(caught.value)  # PyTorch itself advises to set it to False, which would run it
    with pytest.raises(ForestageError, match=r"refused: |of no known recording, or damaged"):
        import_recording(path)
    assert not marker.exists()
    torch.load(path, weights_only=False)  # it would have run
    assert marker.exists()


def test_a_bare_pickle_and_the_old_format_are_refused(tmp_path: Path) -> None:
    marker, path = tmp_path / "was-run", tmp_path / "old.pt"
    path.write_bytes(pickle.dumps(Hostile(marker)))
    with pytest.raises(ForestageError, match="no PyTorch zip file"):
        torch_file.load(path)
    torch.save({"logical_count": torch.ones(2, 3, 4)}, path, _use_new_zipfile_serialization=False)
    with pytest.raises(ForestageError, match="no PyTorch zip file"):
        import_recording(path, "sglang_stat")
    assert not marker.exists()


def test_values_arrive_as_arrays_and_plain_containers(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    value = {"list": [1, 2.5, "x", None, True], "tuple": (torch.arange(3),), "nested": {"b": torch.ones(2).bfloat16()}}
    torch.save(value, path)
    loaded = torch_file.load(path)
    assert loaded["list"] == [1, 2.5, "x", None, True]
    assert isinstance(loaded["tuple"], tuple)
    assert loaded["tuple"][0].tolist() == [0, 1, 2]
    assert loaded["nested"]["b"].dtype == np.float32
    assert torch_file.names_in(path) >= {"list", "tuple", "nested", "b"}


@pytest.mark.parametrize("odd", [torch.ones(2, 2).to_sparse(), torch.ones(2, dtype=torch.complex64), {1, 2}])
def test_what_no_recording_holds_is_refused(odd: Any, tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    torch.save({"records": odd}, path)
    with pytest.raises(ForestageError, match=r"a\.pt: refused: "):
        torch_file.load(path)


def test_an_archive_that_was_packed_again_is_refused(tmp_path: Path) -> None:
    """PyTorch maps the bytes of a compressed tensor as if they were its numbers."""
    torch.save({"rank": 0, "logical_count": torch.ones((2, 3, 4), dtype=torch.int32)}, tmp_path / "a.pt")
    with zipfile.ZipFile(tmp_path / "a.pt") as saved, zipfile.ZipFile(tmp_path / "b.pt", "w") as again:
        for member in saved.namelist():
            again.writestr(member, saved.read(member), zipfile.ZIP_DEFLATED)
    with pytest.raises(ForestageError, match=r"b\.pt: 'a/data.pkl' is compressed"):
        torch_file.load(tmp_path / "b.pt")


def test_torchscript_is_refused_without_a_word_of_pytorchs(tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    torch.save({"rank": 0}, tmp_path / "a.pt")
    with zipfile.ZipFile(tmp_path / "a.pt", "a") as archive:
        archive.writestr("a/constants.pkl", b"x")
    with pytest.raises(ForestageError, match=r"a\.pt: refused: .*TorchScript archives") as caught:
        torch_file.load(tmp_path / "a.pt")
    assert "weights_only" not in str(caught.value)
    assert not recwarn.list


def test_every_changed_or_missing_byte_is_noticed_or_harmless(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    counts = torch.arange(24).reshape(2, 3, 4) + 1
    torch.save({"rank": 0, "logical_count": counts}, path)
    data = path.read_bytes()
    accepted = 0
    for where in range(0, len(data), 13):
        damaged = bytearray(data)
        damaged[where] ^= 0x41
        path.write_bytes(damaged)
        try:
            loaded = torch_file.load(path)
        except ForestageError:
            continue
        np.testing.assert_array_equal(loaded["logical_count"], counts.numpy())
        accepted += 1
    assert accepted < len(data) // 13  # padding and file times alone may change unnoticed
    for length in range(0, len(data), 61):
        path.write_bytes(data[:length])
        with pytest.raises(ForestageError):
            torch_file.load(path)


def test_without_torch_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.pt"
    torch.save({"rank": 0, "logical_count": torch.ones((2, 3, 4), dtype=torch.int32)}, path)
    genuine = builtins.__import__

    def without_torch(name: str, *arguments: Any, **named: Any) -> Any:
        if name == "torch":
            raise ImportError(name)
        return genuine(name, *arguments, **named)

    monkeypatch.setattr(builtins, "__import__", without_torch)
    assert sniff_format(path) == "sglang_stat"
    with pytest.raises(ForestageError, match=r"a\.pt: reading it needs PyTorch: pip install 'forestage\[torch\]'"):
        import_recording(path)
