"""Which rows of a bias are those of the recorded layers: where the model tells, and where nothing does."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from safetensors.numpy import save_file

from catalog.errors import ForestageError
from traces import RoutingTrace
from traces.importers import ImportOptions, import_recording

MOONLIGHT = "moonshotai/Moonlight-16B-A3B"  # 27 layers, of which the first is dense; 64 experts, top-6
LAYERS, ROWS, EXPERTS, TOP_K = 26, 5, 64, 6

GENERATOR = np.random.default_rng(3)
LOGITS = GENERATOR.normal(0, 1, (LAYERS, ROWS, EXPERTS)).astype(np.float32)
BIAS = GENERATOR.normal(0, 0.4, (LAYERS, EXPERTS)).astype(np.float32)
ALL = np.concatenate([np.zeros((1, EXPERTS), np.float32), BIAS])


def ids_of(path: Path, bias: Path, part: slice = slice(None), **options: Any) -> npt.NDArray[Any]:
    """Ids ascending, as imported with a bias."""
    tensors = {f"router_logits.{n}": part for n, part in enumerate(LOGITS[part])}
    save_file({**tensors, "input_ids": np.arange(ROWS)[None]}, path / "logits.safetensors")
    said = ImportOptions(model=MOONLIGHT, selection_bias=bias, **options)
    recording = import_recording(path / "logits.safetensors", options=said).recording
    assert isinstance(recording, RoutingTrace)
    return np.sort(recording.expert_ids, axis=-1)


def truth(layers: slice = slice(None)) -> npt.NDArray[Any]:
    scores = 1 / (1 + np.exp(-LOGITS[layers].astype(np.float64))) + BIAS[layers, None]
    return np.sort(np.argsort(-scores, axis=-1)[..., :TOP_K], axis=-1).transpose(1, 0, 2)


def saved(path: Path, array: npt.NDArray[Any]) -> Path:
    np.save(path / "bias.npy", array)
    return path / "bias.npy"


def test_a_row_a_layer_of_the_model_whose_dense_ones_are_empty(tmp_path: Path) -> None:
    np.testing.assert_array_equal(ids_of(tmp_path, saved(tmp_path, BIAS)), truth())
    np.testing.assert_array_equal(ids_of(tmp_path, saved(tmp_path, ALL)), truth())
    none = ALL.copy()
    none[0] = np.nan
    np.testing.assert_array_equal(ids_of(tmp_path, saved(tmp_path, none)), truth())


def test_none_in_a_list_of_a_pt(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch", reason="writes .pt files")
    torch.save([None, *map(torch.from_numpy, BIAS)], tmp_path / "bias.pt")
    np.testing.assert_array_equal(ids_of(tmp_path, tmp_path / "bias.pt"), truth())
    torch.save([None, "?"], tmp_path / "bias.pt")
    with pytest.raises(ForestageError, match=r"bias\.pt: a list; expected the bias \[experts\] of a layer in each"):
        ids_of(tmp_path, tmp_path / "bias.pt")


@pytest.mark.parametrize("rows", [BIAS, ALL], ids=["MoE layers", "all layers"])
def test_some_layers_of_the_model_take_theirs(rows: npt.NDArray[Any], tmp_path: Path) -> None:
    part = slice(4, 10)
    ids = ids_of(tmp_path, saved(tmp_path, rows), part, layers=tuple(range(5, 11)))
    np.testing.assert_array_equal(ids, truth(part))


def test_a_dense_layer_with_a_bias_is_refused(tmp_path: Path) -> None:
    shifted = np.concatenate([BIAS, np.zeros((1, EXPERTS), np.float32)])
    with pytest.raises(ForestageError, match=r"bias\.npy: \[27, 64\]: row 0 would be of a layer that is dense in M"):
        ids_of(tmp_path, saved(tmp_path, shifted))


def test_other_numbers_of_rows_are_refused_with_what_to_do(tmp_path: Path) -> None:
    many = np.concatenate([ALL, ALL[:1]])
    with pytest.raises(ForestageError, match=r"\[28, 64\]; expected \[26, 64\].*27 layers, 26 with .*leave the others"):
        ids_of(tmp_path, saved(tmp_path, many))
    with pytest.raises(ForestageError, match=r"\[25, 64\]; expected \[26, 64\], a row a recorded layer$"):
        ids_of(tmp_path, saved(tmp_path, BIAS[:25]))
    none = ALL.copy()
    none[3] = np.nan
    with pytest.raises(ForestageError, match=r"bias\.npy\[3\]\[0\]: not finite"):
        ids_of(tmp_path, saved(tmp_path, none))
