from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from catalog.errors import ForestageError
from catalog.models import ModelRecord
from gpu_reference.decoder import Decoder, GraphedDecoder, fixed_part
from gpu_reference.decoder.capture import Captured, CudaCapture, Rerun
from tests.gpu_reference.decoder.whole_models import TINY, TINY_LATENT, forward, tiny

BOTH = pytest.mark.parametrize("model", [TINY, TINY_LATENT], ids=["gqa", "mla"])
NEEDS_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU, which this machine lacks")
TOKENS = torch.randint(0, 100, (3, 600), generator=torch.Generator().manual_seed(0)).tolist()


def generate(decoder: Decoder | GraphedDecoder, context: int, steps: int, batch: int) -> torch.Tensor:
    """Logits of a prefill of another length for each slot, and of ``steps`` decode steps of ``batch`` slots."""
    logits = []
    lengths = [context - 3 * slot for slot in range(batch)]
    for slot, length in enumerate(lengths):
        logits.append(forward(decoder, TOKENS[slot][:length], range(length), [slot] * length)[-1:])
    for step in range(steps):
        tokens = [TOKENS[slot][length + step] for slot, length in enumerate(lengths)]
        positions = [length + step for length in lengths]
        logits.append(forward(decoder, tokens, positions, range(batch)))
    return torch.cat(logits)


@BOTH
@pytest.mark.parametrize("prepared", [False, True])
def test_captured_steps_give_the_bits_of_eager_ones(model: ModelRecord, prepared: bool) -> None:
    eager = generate(tiny(model, max_context=600), context=250, steps=20, batch=3)
    graphed = GraphedDecoder(tiny(model, max_context=600), tokens=3, capture=Rerun())
    if prepared:
        assert graphed.prepare() > 0
    found = generate(graphed, context=250, steps=20, batch=3)  # passes from 256 to 512 rows
    assert torch.equal(found, eager)
    assert (graphed.eager_calls, graphed.graph_calls) == (3 * graphed.layers, 20 * graphed.layers)


def test_a_graph_is_made_for_each_layer_and_number_of_rows_that_it_reads() -> None:
    graphed = GraphedDecoder(tiny(max_context=600), tokens=1, capture=Rerun())
    assert graphed.prepare(200) == 4
    assert graphed.prepare(256) == 4
    assert graphed.prepare(257) == 4 + 2  # the two layers without a window
    assert graphed.prepare() == 4 + 2 + 2
    latent = GraphedDecoder(tiny(TINY_LATENT, max_context=300), tokens=1, capture=Rerun())
    assert latent.prepare() == 2 * 2 * 2  # layers, rows, gate and shared experts


@BOTH
def test_preparing_does_not_disturb_sequences_under_way(model: ModelRecord) -> None:
    eager = generate(tiny(model, max_context=64), context=60, steps=4, batch=3)
    decoder = tiny(model, max_context=64)
    found = generate(decoder, context=60, steps=2, batch=3)
    graphed = GraphedDecoder(decoder, tokens=3, capture=Rerun())
    assert graphed.prepare() > 0
    for step in (2, 3):
        lengths = [60 - 3 * slot + step for slot in range(3)]
        tokens = [TOKENS[slot][length] for slot, length in enumerate(lengths)]
        found = torch.cat((found, forward(graphed, tokens, lengths, range(3))))
    assert torch.equal(found, eager)


@BOTH
def test_steps_of_other_slots_run_eagerly(model: ModelRecord) -> None:
    results = []
    for decoder in (tiny(model), GraphedDecoder(tiny(model), tokens=2, capture=Rerun())):
        logits = [generate(decoder, context=10, steps=2, batch=2)]
        logits.append(forward(decoder, [3], [12], [0]))
        logits.append(forward(decoder, [4, 5], [9, 13], [1, 0]))
        logits.append(forward(decoder, [6, 7], [14, 10], [0, 1]))
        results.append(torch.cat(logits))
        if isinstance(decoder, GraphedDecoder):
            assert decoder.graph_calls == 3 * decoder.layers
    assert torch.equal(results[0], results[1])


def test_a_reset_slot_begins_anew_in_graphs_too() -> None:
    graphed = GraphedDecoder(tiny(), tokens=1, capture=Rerun())
    first = generate(graphed, context=12, steps=5, batch=1)
    graphed.reset(0)
    assert torch.equal(generate(graphed, context=12, steps=5, batch=1), first)


def test_an_experts_sum_of_another_type_is_added_as_in_eager_mode() -> None:
    results = []
    for decoder in (tiny(dtype=torch.bfloat16), GraphedDecoder(tiny(dtype=torch.bfloat16), tokens=1, capture=Rerun())):
        hidden = decoder.embed(torch.tensor([3]))
        for layer in range(decoder.layers):
            gate = decoder.before_gate(layer, hidden, [0], [0])
            hidden = decoder.after_experts(layer, gate.residual, gate.normed.float() / 3, None)
        results.append(decoder.logits(hidden))
    assert torch.equal(results[0], results[1])


def test_the_last_layers_output_stays_when_the_next_step_runs() -> None:
    graphed = GraphedDecoder(tiny(), tokens=1, capture=Rerun())
    outputs = []
    for position in range(2):
        hidden = graphed.embed(torch.tensor([3]))
        for layer in range(graphed.layers):
            gate = graphed.before_gate(layer, hidden, [position], [0])
            hidden = graphed.after_experts(layer, gate.residual, gate.normed, None)
        outputs.append((hidden, hidden.clone()))
    assert torch.equal(*outputs[0])


def test_logits_from_elsewhere_are_chosen_from_as_in_eager_mode() -> None:
    graphed = GraphedDecoder(tiny(), tokens=1, capture=Rerun())
    gate = graphed.before_gate(0, graphed.embed(torch.tensor([3])), [0], [0])
    own, _ = graphed.choose(0, gate.router_logits)
    other, _ = graphed.choose(0, -gate.router_logits)
    assert own.tolist() == gate.router_logits.topk(2).indices.tolist()
    assert other.tolist() == (-gate.router_logits).topk(2).indices.tolist()


def test_shared_experts_run_as_a_graph_for_what_the_layers_graph_gave_and_eagerly_for_the_rest() -> None:
    decoder = tiny(TINY_LATENT)
    graphed = GraphedDecoder(decoder, tokens=1, capture=Rerun())
    gate = graphed.before_gate(0, graphed.embed(torch.tensor([3])), [0], [0])
    own, again = (graphed.shared(0, gate.normed) for _ in range(2))
    assert own is again
    assert own is not None
    assert torch.equal(own, decoder.shared(0, gate.normed))  # type: ignore[arg-type]
    assert torch.equal(graphed.shared(0, -gate.normed), decoder.shared(0, -gate.normed))  # type: ignore[arg-type]


@BOTH
@pytest.mark.parametrize("graphs", [False, True])
def test_calls_inside_and_outside_of_inference_mode_may_follow_each_other(model: ModelRecord, graphs: bool) -> None:
    expected = generate(tiny(model), context=12, steps=4, batch=2)
    for made_inside in (False, True):
        with torch.inference_mode(made_inside):
            decoder: Decoder | GraphedDecoder = tiny(model)
            if graphs:
                decoder = GraphedDecoder(decoder, tokens=2, capture=Rerun())  # type: ignore[arg-type]
        found = []
        for inside in (True, False, True):
            for slot in range(2):
                decoder.reset(slot)
            with torch.inference_mode(inside):
                found.append(generate(decoder, context=12, steps=4, batch=2))
        assert all(torch.equal(logits, expected) for logits in found)


def test_graphs_are_refused_on_the_cpu_and_for_more_tokens_than_slots() -> None:
    with pytest.raises(ForestageError, match="graphs: cpu has no CUDA graphs; take mode eager, or device cuda"):
        GraphedDecoder(tiny(), tokens=1)
    with pytest.raises(ForestageError, match="tokens: 4 in a step; the decoder has 3 slots"):
        GraphedDecoder(tiny(), tokens=4, capture=Rerun())


@NEEDS_GPU
@BOTH
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_cuda_graphs_give_the_bits_of_eager_steps(model: ModelRecord, dtype: torch.dtype) -> None:
    settings = {"device": "cuda", "dtype": dtype, "max_context": 600}
    eager = generate(tiny(model, **settings), context=250, steps=20, batch=3)
    graphed = GraphedDecoder(tiny(model, **settings), tokens=3, capture=CudaCapture(torch.device("cuda")))
    graphed.prepare()
    assert torch.equal(generate(graphed, context=250, steps=20, batch=3), eager)


@BOTH
@pytest.mark.parametrize("mode", ["eager", "graph"])
def test_a_fixed_part_is_what_a_decode_step_computes_and_can_be_repeated(model: ModelRecord, mode: str) -> None:
    decoder = tiny(model)
    measured = decoder if mode == "eager" else GraphedDecoder(decoder, tokens=2, capture=Rerun())
    for layer in range(decoder.layers):
        run = fixed_part(measured, layer, context=31, batch=2)
        first = [tensor.clone() for tensor in vars(run()).values()]
        second = list(vars(run()).values())
        assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
        assert first[2].shape == (2, 8)
        for cache in (decoder.caches[block] for block in decoder.blocks_of(layer)):
            assert cache.lengths == [31, 31, 0]
            assert cache.keys[:2, :, :31].ne(0).all()  # every row that is read has been filled
    if isinstance(measured, GraphedDecoder):
        assert measured.eager_calls == 0


def test_a_fixed_part_depends_on_its_context() -> None:
    outputs = [fixed_part(tiny(), 1, context=context, batch=1)().router_logits for context in (1, 20, 40)]
    assert not torch.allclose(outputs[0], outputs[1])
    assert not torch.allclose(outputs[1], outputs[2])


@pytest.mark.parametrize(
    ("layer", "context", "batch", "told"),
    [
        (4, 1, 1, "layer 4"),
        (0, 0, 1, "context 0"),
        (0, 41, 1, "context 41"),
        (0, 1, 4, "batch 4"),
        (0, 1, 0, "batch 0"),
    ],
)
def test_a_fixed_part_that_the_decoder_has_not_is_refused(layer: int, context: int, batch: int, told: str) -> None:
    with pytest.raises(ForestageError, match=told):
        fixed_part(tiny(), layer, context, batch)
    if told == "batch 4":
        with pytest.raises(ForestageError, match="batch 1: the graphs are for 2"):
            fixed_part(GraphedDecoder(tiny(), tokens=2, capture=Rerun()), 0, 1, 1)


class Watch(TorchDispatchMode):
    """Names of the operations that run inside it."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.add(func.overloadpacket.__name__)
        return func(*args, **(kwargs or {}))


WAITING = {"_local_scalar_dense", "nonzero", "is_nonzero", "lift_fresh", "unique_dim", "masked_select", "bincount"}
"""Operations that read the device's results on the host, or copy a host's constant to the device."""


@BOTH
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_is_captured_neither_waits_for_the_device_nor_copies_from_the_host(
    model: ModelRecord, dtype: torch.dtype
) -> None:
    with Watch() as outside:
        assert torch.tensor([1]).nonzero().sum().item() == 0
    assert {"_local_scalar_dense", "nonzero", "lift_fresh"} <= outside.names

    watches = []

    def capture(run: Callable[[], Sequence[torch.Tensor]]) -> Captured:
        with Watch() as watch:
            outputs = tuple(run())
        watches.append(watch)
        return Captured(outputs, lambda: None)

    GraphedDecoder(tiny(model, dtype=dtype), tokens=2, capture=capture).prepare()
    assert len(watches) == (2 * 2 if model is TINY_LATENT else 4)
    for watch in watches:
        assert watch.names
        assert not watch.names & WAITING
