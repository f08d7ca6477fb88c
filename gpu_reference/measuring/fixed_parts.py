"""What a layer does beside its routed experts, by kind of layer, context and batch; eager and as CUDA graphs."""

from functools import partial
from itertools import groupby

import torch

from catalog.models import ModelRecord
from gpu_reference.decoder.decoder import Decoder
from gpu_reference.decoder.fixed_part import fixed_part
from gpu_reference.decoder.graphs import GraphedDecoder
from gpu_reference.decoder.shape import DecoderShape
from gpu_reference.decoder.weights import Tensors, random_tensors
from gpu_reference.measuring.bench import Bench, Figures, Skipped, checked
from gpu_reference.measuring.clock import each_time
from gpu_reference.measuring.experts import inputs
from gpu_reference.records.micro import MicroKind

CONTEXTS = {"quick": (256,), "full": (256, 1024, 4096)}
BATCHES = {"quick": (1,), "full": (1, 4, 16)}

SMALL_VOCABULARY = 256
"""Of the decoder whose layers are measured: they look at no token."""

MOST_ERROR = 5e-2
"""Of router logits in BF16 against float64: some tens of roundings of 2^−8 each."""

QUEUED = 8


def fixed_parts(bench: Bench) -> Figures:
    """From the experts of the layer before to this one's choice, and shared experts, by kind of layer."""
    for layers in alike(bench.model):
        yield from _of_layer(bench, layers)


def output_matrix(bench: Bench) -> Figures:
    """The last norm and the output matrix."""
    model = bench.model
    if model.vocabulary is None:
        raise Skipped(f"the vocabulary of {model.name} is not in the catalogue")
    decoder = Decoder.random(
        model, model.layer_map[:1], device=bench.device, dtype=torch.bfloat16, max_context=1, seed=bench.seed
    )
    for batch in BATCHES[bench.suite]:
        x = inputs(bench, batch, bench.device)
        rows = decoder.logits(x)[:, :SMALL_VOCABULARY]
        head = decoder._outer.get("head", decoder._outer["embedding"])[:SMALL_VOCABULARY].double().cpu()
        squares = x.double().cpu().square().mean(-1, keepdim=True)
        normed = x.double().cpu() / (squares + decoder.shape.family.norm_epsilon).sqrt()
        exact = (normed * decoder._outer["norm"].double().cpu()) @ head.T
        error = checked("logits", rows, exact.numpy(), MOST_ERROR)
        yield bench.micro(
            MicroKind.FIXED_PART,
            each_time(partial(decoder.logits, x)),
            queued=QUEUED,
            by_device=True,
            error=error,
            part="logits",
            layers=str(model.moe_layers - 1),
            context=1,
            batch=batch,
            launched="eager",
        )


def alike(model: ModelRecord) -> list[tuple[int, ...]]:
    """Layers with experts, counted without dense ones, that have the same attention and dense layers before them."""

    def kind(number: int) -> str:
        layer = model.layer_map[number]
        before = model.layer_map[number - 1] + 1 if number else 0
        return repr([model.attention_of(each) for each in range(before, layer + 1)])

    numbers = sorted(range(model.moe_layers), key=lambda number: (kind(number), number))
    return sorted(tuple(group) for _, group in groupby(numbers, key=kind))


def _of_layer(bench: Bench, layers: tuple[int, ...]) -> Figures:
    # The decoder has this layer, and the one before it, whose experts it comes after.
    own = layers[-1]
    model = bench.model.model_copy(update={"vocabulary": SMALL_VOCABULARY})
    kept = [model.layer_map[number] for number in range(max(0, own - 1), own + 1)]
    shape = DecoderShape.of(model, kept)
    generator = torch.Generator("cpu").manual_seed(bench.seed)
    at = torch.device("cpu")
    outer = random_tensors(shape.outer_tensors, generator, device=at, dtype=torch.bfloat16)
    blocks = [random_tensors(shape.tensors(b), generator, device=at, dtype=torch.bfloat16) for b in shape.blocks]
    layer = len(kept) - 1
    contexts, batches = CONTEXTS[bench.suite], BATCHES[bench.suite]
    for batch in batches:
        decoder = _decoder(shape, outer, blocks, bench.device, torch.bfloat16, batch, max(contexts))
        exact = _decoder(shape, outer, blocks, "cpu", torch.float64, batch, max(contexts))
        ways: list[tuple[str, Decoder | GraphedDecoder]] = [("eager", decoder)]
        if bench.on_cuda:
            ways.append(("graph", GraphedDecoder(decoder, tokens=batch)))
        for context in contexts:
            for launched, runner in ways:
                run = fixed_part(runner, layer, context, batch)
                error = _error(bench, runner, exact, layer, context, batch)
                for by_device in (False, True) if bench.on_cuda else (False,):
                    yield bench.micro(
                        MicroKind.FIXED_PART,
                        each_time(run),
                        queued=QUEUED if bench.on_cuda else 1,
                        by_device=by_device,
                        error=error,
                        part="to_gate",
                        layers=",".join(map(str, layers)),
                        context=context,
                        batch=batch,
                        launched=launched,
                    )
        if decoder.has_shared(layer):
            x = inputs(bench, batch, bench.device)
            found, wanted = decoder.shared(layer, x), exact.shared(layer, x.double().cpu())
            assert found is not None
            assert wanted is not None
            error = checked("shared experts", found, wanted.numpy(), MOST_ERROR)
            yield bench.micro(
                MicroKind.FIXED_PART,
                each_time(partial(decoder.shared, layer, x)),
                queued=QUEUED if bench.on_cuda else 1,
                by_device=True,
                error=error,
                part="shared",
                layers=",".join(map(str, layers)),
                context=1,
                batch=batch,
                launched="eager",
            )


def _decoder(
    shape: DecoderShape,
    outer: Tensors,
    blocks: list[Tensors],
    device: str,
    dtype: torch.dtype,
    slots: int,
    max_context: int,
) -> Decoder:
    """A decoder with these weights: on the device to be measured, or in float64 to compare with."""

    def moved(tensors: Tensors) -> Tensors:
        return {name: tensor.to(device, dtype) for name, tensor in tensors.items()}

    return Decoder(
        shape,
        moved(outer),
        [moved(block) for block in blocks],
        slots=slots,
        max_context=max_context,
        device=torch.device(device),
        dtype=dtype,
    )


def _error(
    bench: Bench,
    runner: Decoder | GraphedDecoder,
    exact: Decoder,
    layer: int,
    context: int,
    batch: int,
) -> float:
    """The larger relative error of residual stream and router logits of ``layer``, its caches being filled.

    Raises:
        WrongResultError: if it is too large.
    """
    decoder = runner.decoder if isinstance(runner, GraphedDecoder) else runner
    for block in decoder.blocks_of(layer):
        cache, copy = decoder.caches[block], exact.caches[block]
        copy.keys.copy_(cache.keys)
        copy.values.copy_(cache.values)
        for each in (cache, copy):
            each.lengths[:batch] = [context - 1] * batch
    hidden = inputs(bench, batch, bench.device)
    positions, slots = [context - 1] * batch, list(range(batch))
    found = runner.before_gate(layer, hidden, positions, slots)
    wanted = exact.before_gate(layer, hidden.double().cpu(), positions, slots)
    return max(
        checked(f"fixed part of layer {layer}, {name}", getattr(found, name), getattr(wanted, name).numpy(), MOST_ERROR)
        for name in ("residual", "router_logits")
    )
