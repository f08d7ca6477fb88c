"""Blocks of experts: sizes, views that alias them, packing, random ones."""

import math

import pytest
import torch

from catalog import load_catalog
from catalog.errors import ForestageError
from catalog.models import ModelRecord
from gpu_reference.experts.layout import FORMATS, ExpertLayout, Format
from gpu_reference.experts.shape import ExpertShape
from pim_model.numerics.formats import Int8Matrix

SWIGLU = ExpertShape(hidden=48, intermediate=32, matrices=3, activation="swiglu")
GPT_OSS = ExpertShape(hidden=64, intermediate=96, matrices=3, activation="gpt_oss_swiglu", bias=True)
UP_DOWN = ExpertShape(hidden=32, intermediate=80, matrices=2, activation="relu")
SHAPES = [SWIGLU, GPT_OSS, UP_DOWN]

MODELS = list(load_catalog().models)


def weights_of(shape: ExpertShape, seed: int = 0) -> tuple[torch.Tensor, ...]:
    """Random weights, and biases where the shape has them."""
    generator = torch.Generator().manual_seed(seed)
    sizes: list[tuple[int, ...]] = [(shape.inner_rows, shape.hidden), (shape.hidden, shape.intermediate)]
    if shape.bias:
        sizes += [(shape.inner_rows,), (shape.hidden,)]
    return tuple(torch.randn(size, generator=generator) * 0.1 for size in sizes)


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.name)
def test_a_block_has_the_size_that_the_catalogue_states(model: ModelRecord) -> None:
    if model.expert_weight_format not in FORMATS:
        with pytest.raises(ForestageError, match=f"experts in {model.expert_weight_format} cannot be computed here"):
            ExpertLayout.of(model)
        return
    assert ExpertLayout.of(model).nbytes == model.expert_bytes


def test_the_catalogue_has_models_in_every_format_but_int8() -> None:
    assert {model.expert_weight_format for model in MODELS} >= {"fp32", "bf16", "mxfp4"}
    oss = load_catalog().find_model("gpt-oss-20b")
    layout = ExpertLayout.of(oss)
    # By hand: three 2880 × 2880 matrices of 4-bit codes, a byte for 32, biases of 2 · 2880 and 2880 in two bytes.
    assert layout.nbytes == 3 * 2880 * 2880 * 17 // 32 + 3 * 2880 * 2 == 13_236_480


@pytest.mark.parametrize("format", FORMATS)
def test_no_shape_of_the_catalogue_needs_padding(format: Format) -> None:
    for model in MODELS:
        layout = ExpertLayout.of(model, format)
        assert layout.padding == 0, model.name
        starts = [span.start for span in layout.spans.values()]
        assert all(start % 16 == 0 for start in starts)
        assert starts == sorted(starts)


def test_parts_are_padded_to_16_bytes_where_they_must_be() -> None:
    shape = ExpertShape(hidden=6, intermediate=10, matrices=3, activation="swiglu")
    layout = ExpertLayout(shape, "mxfp4")
    # Codes 20 × 3 and 6 × 5, scales 20 and 6.
    assert [(s.start, s.end) for s in layout.spans.values()] == [(0, 60), (64, 84), (96, 126), (128, 134)]
    assert (layout.nbytes, layout.padding) == (144, 144 - 60 - 20 - 30 - 6)
    gate_up, down = weights_of(shape)
    again = layout.dequantised(layout.pack(gate_up, down))
    assert (again[0] - gate_up).abs().max() < 0.1


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.activation)
def test_packed_weights_come_back_as_near_as_the_format_allows(shape: ExpertShape, format: Format) -> None:
    layout = ExpertLayout(shape, format)
    given = weights_of(shape)
    back = [part for part in layout.dequantised(layout.pack(*given)) if part is not None]
    assert len(back) == len(given)
    for index, (found, weight) in enumerate(zip(back, given, strict=True)):
        if index >= 2:  # a bias
            assert torch.equal(found, weight.to(torch.bfloat16).float())
        elif format == "fp32":
            assert torch.equal(found, weight)
        elif format == "bf16":
            assert torch.equal(found, weight.to(torch.bfloat16).float())
        elif format == "int8":
            assert ((found - weight).abs() <= weight.abs().amax(dim=1, keepdim=True) / 254 * 1.0001).all()
        else:
            # Between neighbours lies at most 2 of at most 8, and what saturates loses at most 2: a quarter of the
            # largest magnitude of the group, which is at most the row's.
            assert ((found - weight).abs() <= weight.abs().amax(dim=1, keepdim=True) / 4).all()


def test_int8_weights_are_the_pim_models_integers() -> None:
    layout = ExpertLayout(SWIGLU, "int8")
    gate_up, down = weights_of(SWIGLU, seed=3)
    gate_up[5] = 0
    views = layout.views(layout.pack(gate_up, down))
    for values, scales, matrix in (
        (views.gate_up, views.gate_up_scales, gate_up),
        (views.down, views.down_scales, down),
    ):
        expected = Int8Matrix.of(matrix.numpy())
        assert scales is not None
        assert (values.numpy() == expected.codes).all()
        assert (scales.numpy() == expected.scales).all()


@pytest.mark.parametrize("format", FORMATS)
def test_views_alias_the_block_without_a_copy_wherever_it_lies(format: Format) -> None:
    layout = ExpertLayout(GPT_OSS, format)
    block = layout.pack(*weights_of(GPT_OSS))
    places = torch.zeros((3, layout.nbytes), dtype=torch.uint8)
    places[2] = block
    views = layout.views(places[2])
    assert views.down_bias is not None
    views.down_bias[7] = 3.5
    views.gate_up[0].zero_()
    found = layout.dequantised(places[2])
    assert not found[0][0].any()
    assert found[3] is not None
    assert found[3][7] == 3.5
    assert not places[:2].any()
    covered = sum(view.numel() * view.element_size() for view in vars(views).values() if view is not None)
    assert covered + layout.padding == layout.nbytes


def test_a_block_or_part_that_does_not_fit_is_refused_in_one_line() -> None:
    layout = ExpertLayout(SWIGLU, "bf16")
    gate_up, down = weights_of(SWIGLU)
    with pytest.raises(ForestageError, match=r"gate_up has shape \(32, 48\); give \(64, 48\)"):
        layout.pack(gate_up[:32], down)
    with pytest.raises(ForestageError, match="down_bias has shape"):
        layout.pack(gate_up, down, None, torch.zeros(48))
    with pytest.raises(ForestageError, match="gate_up_bias has shape None"):
        ExpertLayout(GPT_OSS, "bf16").pack(*weights_of(GPT_OSS)[:2])
    with pytest.raises(ForestageError, match="down is not finite in bf16"):
        layout.pack(gate_up, down * 3.4e38 / down.abs().max() * 1.0009)
    with pytest.raises(ForestageError, match="gate_up is not finite in fp32"):
        ExpertLayout(SWIGLU, "fp32").pack(gate_up * math.inf, down)
    with pytest.raises(ForestageError, match=rf"give uint8 \[{layout.nbytes}\]"):
        layout.views(torch.zeros(layout.nbytes + 16, dtype=torch.uint8))
    room = torch.zeros(2 * layout.nbytes + 16, dtype=torch.uint8)
    with pytest.raises(ForestageError, match="at byte 8 of its storage"):
        layout.views(room[8 : 8 + layout.nbytes])
    with pytest.raises(ForestageError, match="stride 2"):
        layout.views(room[: 2 * layout.nbytes : 2])


def test_unknown_formats_and_impossible_shapes_are_refused() -> None:
    with pytest.raises(ForestageError, match="'fp8' is none of fp32, bf16, int8, mxfp4"):
        ExpertLayout(SWIGLU, "fp8")  # type: ignore[arg-type]
    with pytest.raises(ForestageError, match="hidden: 47 is odd"):
        ExpertLayout(ExpertShape(hidden=47, intermediate=32, matrices=3, activation="swiglu"), "mxfp4")
    with pytest.raises(ForestageError, match="'relu' takes 2 matrices, not 3"):
        ExpertShape(hidden=48, intermediate=32, matrices=3, activation="relu")
    with pytest.raises(ForestageError, match="intermediate: 0 is below 1"):
        ExpertShape.of(load_catalog().find_model("gpt-oss-20b"), intermediate=0)


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("shape", [GPT_OSS, UP_DOWN], ids=lambda shape: shape.activation)
def test_random_experts_are_valid_of_realistic_size_and_reproducible(shape: ExpertShape, format: Format) -> None:
    layout = ExpertLayout(shape, format)
    blocks = layout.random(5, seed=4)
    assert torch.equal(blocks, layout.random(5, seed=4))
    assert not torch.equal(blocks, layout.random(5, seed=5))
    assert not torch.equal(blocks[0], blocks[1])
    for block in blocks:
        gate_up, down, *biases = layout.dequantised(block)
        for matrix in (gate_up, down):
            size = float(matrix.square().mean().sqrt()) * math.sqrt(matrix.shape[1])
            assert 0.6 < size < 1.6
            assert abs(float(matrix.mean())) < 0.2 * float(matrix.std())
            assert torch.isfinite(matrix).all()
            assert len(matrix.unique()) > 16
        assert all((bias is None) != shape.bias for bias in biases)
        assert all(0.01 < float(bias.square().mean().sqrt()) < 0.2 for bias in biases if bias is not None)
    if format == "int8":
        assert int(layout.views(blocks[0]).gate_up.min()) == -127
