from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from catalog.errors import ForestageError
from gpu_reference.moe_layer import BlockRecord, ReplayMoELayer, read_experts, record_block
from gpu_reference.small_moe import CONFIG_FILE, WEIGHTS_FILE, load_model, save_checkpoint
from tests.routing import trace_of
from traces import RoutingTrace

LAYER = 1
DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU"))]


@pytest.fixture(scope="module")
def checkpoint(tiny_model: Any, tokenizer: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("checkpoint")
    save_checkpoint(tiny_model, tokenizer, folder)
    return folder


@pytest.fixture(scope="module")
def record(checkpoint: Path) -> BlockRecord:
    tokens = torch.randint(1, 300, (3, 11), generator=torch.Generator().manual_seed(5))
    return record_block(load_model(checkpoint), tokens, LAYER)


@pytest.mark.parametrize("device", DEVICES)
def test_equals_the_transformers_block_on_its_own_routing(checkpoint: Path, record: BlockRecord, device: str) -> None:
    layer = ReplayMoELayer.from_checkpoint(checkpoint, LAYER, device=device)
    output = layer(record.x.to(device), record.ids.to(device), record.weights.to(device))
    assert record.output.abs().max() > 1e-4
    torch.testing.assert_close(output.cpu(), record.output, rtol=1e-4, atol=1e-7)


def test_other_routing_gives_another_result(checkpoint: Path, record: BlockRecord) -> None:
    layer = ReplayMoELayer.from_checkpoint(checkpoint, LAYER)
    output = layer(record.x, (record.ids + 1) % 8, record.weights)
    assert not torch.allclose(output, record.output, rtol=1e-2)


def _trace(record: BlockRecord, *, weights: bool = True, experts: int = 8) -> RoutingTrace:
    """The record as a trace of two layers, the second of which is the record's."""
    ids = record.ids.numpy().astype(np.uint8)
    gates = record.weights.numpy().astype(np.float16)
    return trace_of(
        np.stack([(ids + 1) % 8, ids], axis=1),
        experts=experts,
        prompt=len(ids),
        gate_weights=np.stack([gates, gates], axis=1) if weights else None,
    )


def test_replays_a_trace_up_to_half_precision_gates(checkpoint: Path, record: BlockRecord) -> None:
    output = ReplayMoELayer.from_checkpoint(checkpoint, LAYER).replay(record.x, _trace(record), 1)
    torch.testing.assert_close(output, record.output, rtol=2e-3, atol=1e-6)


@pytest.mark.parametrize(
    ("trace", "layer", "rows", "message"),
    [
        ({"weights": False}, 1, None, "gate_weights: none recorded"),
        ({"experts": 9}, 1, None, "has 9 experts a layer, the checkpoint 8"),
        ({}, 2, None, "layer 2 is outside 0 to 1"),
        ({}, 1, 4, "has 33 tokens, 4 inputs"),
    ],
)
def test_a_trace_that_does_not_fit_is_an_error(
    checkpoint: Path, record: BlockRecord, trace: dict[str, Any], layer: int, rows: int | None, message: str
) -> None:
    with pytest.raises(ForestageError, match=message):
        ReplayMoELayer.from_checkpoint(checkpoint, LAYER).replay(record.x[:rows], _trace(record, **trace), layer)


def test_shapes_and_ids_are_checked(checkpoint: Path, record: BlockRecord) -> None:
    layer = ReplayMoELayer.from_checkpoint(checkpoint, LAYER)
    assert (layer.experts, layer.hidden, layer.intermediate, layer.expert_bytes) == (8, 32, 16, 3 * 32 * 16 * 4)
    with pytest.raises(ValueError, match="do not fit"):
        layer(record.x[:5], record.ids, record.weights)
    for shift in (8, -9):
        with pytest.raises(ValueError, match="outside 0 to 7"):
            layer(record.x, record.ids + shift, record.weights)
    with pytest.raises(ValueError, match="do not fit"):
        ReplayMoELayer(layer.gate_up, layer.down[:, :, 1:])


def test_checkpoint_errors_are_one_line(checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(ForestageError, match="layer 3 is outside 0 to 2"):
        read_experts(checkpoint, 3)
    with pytest.raises(ForestageError, match="no such file; make it with"):
        read_experts(tmp_path, 0)
    (tmp_path / CONFIG_FILE).write_text((checkpoint / CONFIG_FILE).read_text())
    (tmp_path / WEIGHTS_FILE).write_bytes((checkpoint / WEIGHTS_FILE).read_bytes()[:1000])
    with pytest.raises(ForestageError, match="cannot be read"):
        read_experts(tmp_path, 0)
