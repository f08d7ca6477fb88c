"""Perplexity with quantised experts, on a tiny model and texts made here."""

from typing import Any

import numpy as np
import pytest
import torch

from catalog.errors import ForestageError
from gpu_reference import perplexity
from gpu_reference.experts.blocks import BlockExperts
from gpu_reference.experts.layout import ExpertLayout
from gpu_reference.experts.shape import ExpertShape
from gpu_reference.training.batches import TokenStream, available_windows
from gpu_reference.training.train import validate
from pim_model.numerics.expert import Expert, run_expert
from pim_model.numerics.floats import bf16_from_float
from pim_model.numerics.formats import Int8Matrix
from pim_model.unit.program import ExpertKind
from predictor.measure.bootstrap import Bootstrap

Streams = tuple[dict[str, TokenStream], dict[str, TokenStream]]


@pytest.fixture(scope="module")
def windows(streams: Streams) -> dict[str, perplexity.Windows]:
    return perplexity.windows_of(streams[1], 4 * 2 * perplexity.CONTEXT)


@pytest.fixture(scope="module")
def report(tiny_model: Any, windows: dict[str, perplexity.Windows]) -> perplexity.PerplexityReport:
    return perplexity.measure_perplexity(
        tiny_model, windows, perplexity.chosen_formats([]), checkpoint="tiny", command="none"
    )


def test_in_floating_point_the_loss_is_that_of_training_and_the_model_keeps_its_experts(
    tiny_model: Any, windows: dict[str, perplexity.Windows], report: perplexity.PerplexityReport
) -> None:
    held_out = {domain: part.tokens for domain, part in windows.items()}
    expected = validate(tiny_model, held_out, "cpu")
    tiny_model.eval()
    found = {part.domain: part.loss for part in report.formats[0].domains}
    assert found["code"] == pytest.approx(expected["code"], rel=1e-6)
    assert found["prose"] == pytest.approx(expected["prose"], rel=1e-6)
    assert found["both"] == pytest.approx((expected["code"] + expected["prose"]) / 2, rel=1e-6)
    assert all(not isinstance(layer.mlp.experts, BlockExperts) for layer in tiny_model.model.layers)


def test_each_format_gives_other_figures_whose_ratio_is_the_quotient(report: perplexity.PerplexityReport) -> None:
    exact, *others = report.formats
    assert [measured.format for measured in report.formats] == ["float", "int8", "int8-activations", "mxfp4"]
    # By hand: 3 · 16 · 32 weights; scales of 32 + 32 rows, or 32 + 32 groups (16 wide, the last one short).
    assert [measured.expert_bytes for measured in report.formats] == [6144, 1536 + 256, 1536 + 256, 768 + 64]
    for part in exact.domains:
        assert (part.ratio, part.low, part.high) == (1.0, 1.0, 1.0)
    for measured in others:
        for part, base in zip(measured.domains, exact.domains, strict=True):
            assert part.ratio == pytest.approx(part.perplexity / base.perplexity, rel=1e-9)
            assert part.perplexity == pytest.approx(np.exp(part.loss))
            assert part.loss != base.loss
            assert part.low is not None
            assert part.high is not None
            assert part.low <= part.ratio <= part.high
    assert len({measured.domains[2].loss for measured in report.formats}) == 4


def test_the_same_experts_as_the_pim_units_give_the_same_loss(
    tiny_model: Any, windows: dict[str, perplexity.Windows], report: perplexity.PerplexityReport
) -> None:
    """The arithmetic of `pim_model`, row by row, in the place of the experts of every layer."""

    class PimExperts(torch.nn.Module):
        def __init__(self, own: Any) -> None:
            super().__init__()
            self.experts = [
                Expert.of(
                    ExpertKind.SWIGLU, *(Int8Matrix.of(part.detach().numpy()) for part in (*gate_up.chunk(2), down))
                )
                for gate_up, down in zip(own.gate_up_proj, own.down_proj, strict=True)
            ]

        def forward(self, x: torch.Tensor, ids: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
            result = torch.zeros_like(x)
            for token in range(len(x)):
                for expert, weight in zip(ids[token].tolist(), weights[token].tolist(), strict=True):
                    output = run_expert(self.experts[expert], bf16_from_float(x[token][None].numpy())).values[0]
                    result[token] += weight * torch.from_numpy(output)
            return result

    own = [layer.mlp.experts for layer in tiny_model.model.layers]
    part = {"code": windows["code"].tokens[:1, :49]}
    try:
        for layer, experts in zip(tiny_model.model.layers, own, strict=True):
            layer.mlp.experts = PimExperts(experts)
        expected = validate(tiny_model, part, "cpu")["code"]
        shape = ExpertShape(hidden=32, intermediate=16, matrices=3, activation="swiglu")
        for layer, experts in zip(tiny_model.model.layers, own, strict=True):
            layer.mlp.experts = BlockExperts.of(experts, ExpertLayout(shape, "int8"), "pim")
        found = validate(tiny_model, part, "cpu")["code"]
        for layer, experts in zip(tiny_model.model.layers, own, strict=True):
            layer.mlp.experts = BlockExperts.of(experts, ExpertLayout(shape, "int8"))
        weights_alone = validate(tiny_model, part, "cpu")["code"]
    finally:
        for layer, experts in zip(tiny_model.model.layers, own, strict=True):
            layer.mlp.experts = experts
        tiny_model.eval()
    assert found == pytest.approx(expected, abs=1e-6)
    assert abs(weights_alone - expected) > 1e-6


def test_the_interval_resamples_documents_and_pairs_windows() -> None:
    """Where every document loses the same, the ratio has no spread, however unlike the documents are."""
    documents = np.array([0, 0, 1, 3])
    tokens = np.zeros((4, 9), np.int64)
    windows = {"code": perplexity.Windows(tokens, documents)}
    exact = {"code": np.array([100.0, 5.0, 70.0, 900.0])}
    added = {"code": exact["code"] + 0.01 * perplexity.CONTEXT}
    part = perplexity._compared("code", windows, added, exact, Bootstrap())
    assert (part.ratio, part.low, part.high) == pytest.approx((np.exp(0.01),) * 3)
    # One document of three differs: some draws are without it, and its two windows come and go together.
    one = {"code": exact["code"] + np.array([2.0, 4.0, 0.0, 0.0])}
    part = perplexity._compared("code", windows, one, exact, Bootstrap())
    assert part.low == pytest.approx(1)
    assert part.high == pytest.approx(np.exp(6 / (2 * perplexity.CONTEXT)))  # drawn three times
    assert part.ratio == pytest.approx(np.exp(6 / (4 * perplexity.CONTEXT)))
    alone = {"code": perplexity.Windows(tokens, np.zeros(4, np.int64))}
    assert perplexity._compared("code", alone, one, exact, Bootstrap()).low is None


def test_windows_are_as_many_of_each_domain_and_know_their_document(streams: Streams) -> None:
    held_out = streams[1]
    found = perplexity.windows_of(held_out, 3 * 2 * perplexity.CONTEXT + 1)
    for domain, part in found.items():
        stream = held_out[domain]
        assert part.tokens.shape == (4, perplexity.CONTEXT + 1)
        for row, document in zip(part.tokens, part.documents, strict=True):
            starts = [*stream.document_starts, len(stream.tokens)]
            places = [s for s in range(starts[document], starts[document + 1]) if s % perplexity.CONTEXT == 0]
            assert any((stream.tokens[s : s + perplexity.CONTEXT + 1] == row).all() for s in places)


def test_more_tokens_than_there_are_are_refused_with_what_there_is(streams: Streams) -> None:
    most = 2 * perplexity.CONTEXT * min(available_windows(stream, perplexity.CONTEXT) for stream in streams[1].values())
    with pytest.raises(ForestageError, match=f"tokens: {most + 1}: give {most} at most, as the held-out"):
        perplexity.windows_of(streams[1], most + 1)
    assert len(perplexity.windows_of(streams[1], most)["code"].tokens) == most // 2 // perplexity.CONTEXT
    for none in (0, -5):
        with pytest.raises(ForestageError, match=f"tokens: {none}: give 1 or more"):
            perplexity.check_tokens(none)


def test_formats_are_chosen_by_name_and_unknown_ones_refused() -> None:
    assert perplexity.chosen_formats([]) == ("float", "int8", "int8-activations", "mxfp4")
    assert perplexity.chosen_formats(["mxfp4", "int8"]) == ("float", "int8", "mxfp4")
    with pytest.raises(ForestageError, match="unknown name 'fp8'; the nearest known name is 'mxfp4'"):
        perplexity.chosen_formats(["fp8"])
