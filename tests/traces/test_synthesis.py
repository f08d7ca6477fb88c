"""Synthetic traces: how they fit, what they say of themselves, and that the seed decides everything."""

import json
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from catalog.errors import ForestageError
from catalog.progress import Progress
from tests.traces.trace_samples import make_trace
from traces import DECODE, PREFILL, RoutingTrace
from traces.importers import import_trace
from traces.metadata import SynthesisFit
from traces.selection import select_sequences
from traces.statistics import statistics
from traces.statistics.cross_layer import cross_layer_statistics
from traces.synthesis import Shape, synthesise
from traces.synthesis import calibrate as calibrate_module
from traces.synthesis import model as model_module
from traces.synthesis import parts as parts_module
from traces.synthesis.measure import Figures, Measurement
from traces.synthesis.model import Generator, Parameters, Sameness, _Kinds
from traces.synthesis.plan import plan_sequences
from traces.synthesis.profile import Profile, profile_of, rescale
from traces.synthesis.synthesise import fitted_figures


@contextmanager
def no_progress(label: str) -> Iterator[Progress]:
    yield lambda done, total: None


def make(trace: RoutingTrace, path: Path, **options: Any) -> tuple[SynthesisFit, RoutingTrace]:
    fit = synthesise(trace, path, no_progress, **options)
    return fit, RoutingTrace.load(path, validate=True)


def assert_fit(fit: SynthesisFit, *, overlap: float, load: float, information: float) -> None:
    """Errors of the means over layers at most those given (relative)."""
    bounds = {
        "temporal_overlap": overlap,
        "sequence_overlap": overlap,
        "domain_overlap": overlap,
        "load_entropy": load,
        "hottest_over_mean": 5 * load,
        "mutual_information": information,
    }
    assert set(fit.figures) == set(bounds)
    for name, figure in fit.figures.items():
        assert abs(figure.error) <= bounds[name], f"{name}: {figure}"


@pytest.fixture(scope="module")
def recorded(shipped_trace: Path) -> RoutingTrace:
    """Forty sequences of the shipped trace, of both domains."""
    return select_sequences(RoutingTrace.load(shipped_trace), range(0, 192, 5))


@pytest.fixture
def few_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    """For tests of anything but the fit."""
    monkeypatch.setattr(calibrate_module, "KIND_ROUNDS", 1)
    monkeypatch.setattr(calibrate_module, "LAYER_ROUNDS", 1)


def test_same_shape_fits(recorded: RoutingTrace, tmp_path: Path) -> None:
    fit, trace = make(recorded, tmp_path / "s.safetensors")
    assert_fit(fit, overlap=0.05, load=0.01, information=0.05)
    # Every layer is fitted, not their mean alone.
    for name, figure in fit.figures.items():
        assert abs(figure.worst_layer) < 0.1 * figure.target, name
    # The figures stated are those that the public statistics find, of the recording and of the file.
    asked, found = statistics(recorded).overall, statistics(trace).overall
    assert fit.figures["temporal_overlap"].target == pytest.approx(asked.over_uniform)
    assert fit.figures["temporal_overlap"].achieved == pytest.approx(found.over_uniform)
    assert fit.figures["hottest_over_mean"].achieved == pytest.approx(found.hottest_over_mean)
    assert found.load_entropy == pytest.approx(asked.load_entropy, rel=0.01)
    asked_bits = cross_layer_statistics(recorded).mutual_information_bits
    assert cross_layer_statistics(trace).mutual_information_bits == pytest.approx(asked_bits, rel=0.05)
    # … and neither is what independent choices would have.
    assert found.over_uniform is not None
    assert found.over_uniform > 1.8
    assert asked_bits is not None
    assert asked_bits > 0.3


def test_the_chances_of_one_kind_do_not_depend_on_where_they_begin(
    recorded: RoutingTrace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calibrate_module, "LAYER_ROUNDS", 0)
    plan = plan_sequences(recorded, np.random.default_rng(0))
    metadata = recorded.metadata.model_copy(update={"gate_weight_kind": "none"})
    begin = calibrate_module._first_sameness
    found = []
    for shrunk in (1.0, 0.5):

        def first(*arguments: Any, shrunk: float = shrunk) -> Sameness:
            chances = begin(*arguments)
            return Sameness(
                chances.anywhere, *(shrunk * x for x in (chances.domain, chances.sequence, chances.neighbours))
            )

        with monkeypatch.context() as patched:
            patched.setattr(calibrate_module, "_first_sameness", first)
            found.append(calibrate_module.calibrate(profile_of(recorded), plan, metadata, 0).sameness)
    for name in ("domain", "sequence", "neighbours"):
        assert getattr(found[0], name) == pytest.approx(getattr(found[1], name), rel=0.1), name


def test_another_shape_keeps_the_ratios(recorded: RoutingTrace, tmp_path: Path) -> None:
    shape = Shape(layers=5, experts=64, top_k=6)
    fit, trace = make(recorded, tmp_path / "s.safetensors", shape=shape, tokens=12_000)
    assert (trace.layers, trace.experts, trace.top_k, trace.tokens) == (5, 64, 6, 12_000)
    assert_fit(fit, overlap=0.05, load=0.01, information=0.08)
    asked, found = statistics(recorded).overall, statistics(trace).overall
    assert found.over_uniform == pytest.approx(asked.over_uniform, rel=0.08)
    assert found.hottest_over_mean == pytest.approx(asked.hottest_over_mean, rel=0.15)
    # log N less the entropy, in nats
    assert asked.load_entropy is not None
    assert found.load_entropy is not None
    assert (1 - found.load_entropy) * math.log(64) == pytest.approx((1 - asked.load_entropy) * math.log(32), rel=0.2)
    share = {
        trace: cross_layer_statistics(trace).mutual_information_bits / math.log2(trace.experts / trace.top_k)
        for trace in (recorded, trace)
    }
    assert share[trace] == pytest.approx(share[recorded], rel=0.1)


def test_the_file_says_what_it_is(recorded: RoutingTrace, tmp_path: Path, few_rounds: None) -> None:
    fit, trace = make(recorded, tmp_path / "s.safetensors", seed=3)
    assert trace.metadata.synthetic
    assert trace.metadata.synthesis == fit
    assert (fit.model, fit.layers, fit.experts, fit.top_k, fit.tokens, fit.seed) == (
        recorded.metadata.model, 8, 32, 4, recorded.tokens, 3,
    )  # fmt: skip
    assert trace.metadata.model == recorded.metadata.model
    assert "synthesise" in trace.metadata.source
    assert trace.metadata.ranked
    # The errors are those of the trace as written.
    again = fitted_figures(profile_of(recorded).figures, Measurement.of(trace).figures())
    assert {name: figure.achieved for name, figure in again.items()} == pytest.approx(
        {name: figure.achieved for name, figure in fit.figures.items()}
    )


def test_without_lengths_the_recorded_sequences_are_made(
    recorded: RoutingTrace, tmp_path: Path, few_rounds: None
) -> None:
    _, trace = make(recorded, tmp_path / "s.safetensors")
    for name in ("sequence_offsets", "position", "phase"):
        np.testing.assert_array_equal(getattr(trace, name), getattr(recorded, name))
    assert (trace.domains, trace.datasets) == (recorded.domains, recorded.datasets)
    assert trace.token_hash is None


def test_gate_weights_are_recorded_rows_best_first(recorded: RoutingTrace, tmp_path: Path, few_rounds: None) -> None:
    _, trace = make(recorded, tmp_path / "s.safetensors")
    assert trace.gate_weights is not None
    assert recorded.gate_weights is not None
    assert np.all(trace.gate_weights[..., 1:] <= trace.gate_weights[..., :-1])
    for layer in (0, 7):
        known = {row.tobytes() for row in -np.sort(-recorded.gate_weights[:, layer])}
        assert all(row.tobytes() in known for row in trace.gate_weights[::50, layer])
    _, other = make(recorded, tmp_path / "t.safetensors", shape=Shape(3, 32, 2), tokens=300)
    assert other.gate_weights is None
    assert (other.metadata.model, other.metadata.layer_map) == ("synthetic-3x32-top2", (0, 1, 2))


def test_unsorted_weights_are_put_best_first(tmp_path: Path, few_rounds: None) -> None:
    source = make_trace((20, 20))
    assert source.gate_weights is not None
    rising = replace(source, gate_weights=source.gate_weights[..., ::-1], content="unchecked")
    _, trace = make(rising, tmp_path / "s.safetensors")
    assert trace.gate_weights is not None
    assert np.all(trace.gate_weights[..., 1:] <= trace.gate_weights[..., :-1])


def test_a_sequence_remembers_nothing_of_the_one_before() -> None:
    source = make_trace((2,) * 400, layers=1, experts=16, top_k=2)
    nothing = np.zeros(1)
    parameters = Parameters(
        bias=np.zeros((1, 16)), domain=nothing, sequence=nothing, kind=nothing, copy=np.full(1, 6.0),
        favourites=np.array([[[0, 1], [2, 3]]]), sameness=Sameness(0.5, 0.6, 0.7, 0.8),
    )  # fmt: skip
    plan = plan_sequences(source, np.random.default_rng(0))
    ids = np.concatenate([piece for _, _, piece in Generator(parameters, Shape(1, 16, 2), plan, 0).pieces()])[:, 0]
    shared = (ids[1:, :, None] == ids[:-1, None, :]).sum(axis=(1, 2))
    assert shared[::2].mean() > 1.7  # within sequences
    assert shared[1::2].mean() == pytest.approx(4 / 16, abs=0.1)


def test_the_seed_decides_and_the_piece_size_does_not(
    recorded: RoutingTrace, tmp_path: Path, few_rounds: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = [tmp_path / f"{name}.safetensors" for name in "abc"]
    options = {"tokens": 3000, "shape": Shape(3, 16, 2)}
    make(recorded, paths[0], **options)
    make(recorded, paths[1], **options, seed=1)
    monkeypatch.setattr(model_module, "NOISE_BYTES", 7 * 2 * 3 * 16)
    monkeypatch.setattr(parts_module, "PART_BYTES", 1000)
    make(recorded, paths[2], **options)
    contents = [path.read_bytes() for path in paths]
    assert contents[0] == contents[2]
    assert contents[0] != contents[1]


@pytest.mark.parametrize(("tokens", "sequences"), [(1, None), (5000, None), (None, 7), (1000, 30), (30, 30)])
def test_lengths_asked_for_are_made(recorded: RoutingTrace, tokens: int | None, sequences: int | None) -> None:
    plan = plan_sequences(recorded, np.random.default_rng(0), tokens=tokens, sequences=sequences)
    assert plan.lengths.min() >= 1
    if tokens is not None:
        assert plan.tokens == tokens
    if sequences is not None:
        assert len(plan.lengths) == sequences
    else:
        known = set(np.diff(recorded.sequence_offsets).tolist())
        assert set(plan.lengths[:-1].tolist()) <= known
    covered = [stop - start for _, start, stop in plan.pieces(100)]
    assert sum(covered) == plan.tokens
    assert max(covered) <= 100


def test_drawn_lengths_are_distributed_as_recorded(recorded: RoutingTrace) -> None:
    plan = plan_sequences(recorded, np.random.default_rng(0), sequences=4000)
    lengths = np.diff(recorded.sequence_offsets)
    at_most = [[np.mean(drawn <= length) for length in np.unique(lengths)] for drawn in (plan.lengths, lengths)]
    np.testing.assert_allclose(at_most[0], at_most[1], atol=0.03)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tokens": 0}, "--tokens 0: give 1 or more"),
        ({"sequences": 0}, "--sequences 0: give 1 or more"),
        ({"tokens": 10**30}, "--tokens 10+: give 1 to 10+"),
        ({"sequences": 10**13}, "--sequences 10+: give 1 to 10+"),
        ({"shape": Shape(10**9, 8, 2)}, "--layers 10+: give 1 to 1024"),
        ({"shape": Shape(100, 4096, 4)}, "--layers 100: with 4096 experts a layer, at most 8"),
        ({"tokens": 5, "sequences": 6}, "--tokens 5: fewer than the 6 sequences"),
        ({"shape": Shape(0, 8, 2)}, "--layers 0"),
        ({"shape": Shape(2, 4, 4)}, "--experts 4: give more than the 4"),
        ({"shape": Shape(2, 5000, 4)}, "--experts 5000: .* at most 4096"),
        ({"shape": Shape(2, 8, 4)}, "--experts 8: with top-4 the overlap of consecutive tokens would have to be"),
    ],
)
def test_what_cannot_be_made_is_refused(
    options: dict[str, Any], message: str, recorded: RoutingTrace, tmp_path: Path
) -> None:
    with pytest.raises(ForestageError, match=message) as caught:
        synthesise(recorded, tmp_path / "s.safetensors", no_progress, **options)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_an_unwritable_folder_is_told_before_the_work(recorded: RoutingTrace, tmp_path: Path) -> None:
    def begun(label: str) -> Any:
        raise AssertionError(label)

    (tmp_path / "file").touch()
    with pytest.raises(ForestageError, match="cannot write"):
        synthesise(recorded, tmp_path / "file" / "s.safetensors", begun)


def test_all_experts_chosen_leaves_nothing_to_imitate(tmp_path: Path) -> None:
    with pytest.raises(ForestageError, match="leaves no choice"):
        synthesise(make_trace(experts=2, top_k=2), tmp_path / "s.safetensors", no_progress)


@pytest.mark.parametrize(
    "trace",
    [
        make_trace((1, 1, 1, 1)),
        make_trace((30,), domains=("a",)),
        make_trace((9, 9), layers=1),
        make_trace((9, 9), top_k=1),
        make_trace((9, 9), unrecorded=True),
        make_trace((9, 9), experts=300, top_k=3),
    ],
    ids=["one-token sequences", "one domain", "one layer", "top-1", "unrecorded rows", "u16 ids"],
)
def test_odd_recordings_are_imitated(trace: RoutingTrace, tmp_path: Path, few_rounds: None) -> None:
    fit, made = make(trace, tmp_path / "s.safetensors")
    assert (made.tokens, made.layers, made.top_k) == (trace.tokens, trace.layers, trace.top_k)
    assert not made.metadata.has_unrecorded
    assert all(math.isfinite(figure.achieved) for figure in fit.figures.values())


def test_rescaling_by_hand() -> None:
    figures = Figures(
        load=np.array([[0.5, 1.5], [0.25, 1.75], [0.75, 1.25]]),
        temporal_overlap=np.array([1.0, 1.2, 1.1]),
        sequence_overlap=np.array([1.0, 1.1, 1.2]),
        domain_overlap=np.full(3, np.nan),
        mutual_information=np.array([0.2, 0.4]),
    )
    profile = Profile(Shape(3, 2, 1), figures)
    assert rescale(profile, Shape(3, 2, 1)) is profile
    wide = rescale(profile, Shape(5, 4, 1)).figures
    np.testing.assert_allclose(wide.temporal_overlap, [1.0, 1.1, 1.2, 1.15, 1.1])
    np.testing.assert_allclose(wide.mutual_information, [0.2, 0.2 + 0.2 / 3, 0.2 + 0.4 / 3, 0.4])
    np.testing.assert_allclose(wide.load[0], [0.5, 0.75, 1.25, 1.5])
    np.testing.assert_allclose(wide.load.mean(axis=1), 1)
    assert np.isnan(wide.domain_overlap).all()


def test_kinds_are_the_same_as_often_as_asked() -> None:
    sameness = Sameness(anywhere=1 / 12, domain=0.2, sequence=0.35, neighbours=0.6)
    kinds = _Kinds(sameness, 12, seed=0)
    near, far, across, last = [], [], [], {}
    for sequence in range(6000):
        domain = sequence % 300
        kinds.start_sequence(domain)
        drawn = np.concatenate([kinds.draw(20), kinds.draw(20)])
        near.append(np.mean(drawn[1:] == drawn[:-1]))
        far.append(np.mean(drawn[:10] == drawn[30:]))
        if domain in last:
            across.append(np.mean(drawn[::10] == last[domain][::10]))
        last[domain] = drawn
    assert np.mean(near) == pytest.approx(sameness.neighbours, abs=0.02)
    assert np.mean(far) == pytest.approx(sameness.sequence, abs=0.02)
    assert np.mean(across) == pytest.approx(sameness.domain, abs=0.03)


def test_a_trace_file_without_a_fit_has_no_such_entry(tmp_path: Path) -> None:
    make_trace().save(tmp_path / "t.safetensors")
    data = (tmp_path / "t.safetensors").read_bytes()
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    assert "synthesis" not in json.loads(header["__metadata__"]["trace"])["metadata"]


def test_a_fit_without_the_mark_is_refused(recorded: RoutingTrace, tmp_path: Path, few_rounds: None) -> None:
    _, trace = make(recorded, tmp_path / "s.safetensors", tokens=500)
    facts = trace.metadata.model_dump() | {"synthetic": False}
    with pytest.raises(ForestageError, match="synthesis is stated, but synthetic is false"):
        type(trace.metadata).parse(facts, origin="metadata")


def test_phases_and_positions_follow_the_recorded_sequence(tmp_path: Path, few_rounds: None) -> None:
    source = make_trace((12, 12), prompt=5)
    source = replace(source, position=source.position + 100, content="unchecked")
    _, trace = make(source, tmp_path / "s.safetensors", tokens=30)
    for index in range(trace.sequences):
        part = trace.sequence(index)
        assert part.position[0] in source.position[source.sequence_offsets[:-1]]
        np.testing.assert_array_equal(np.diff(part.position), 1)
        assert part.phase.tolist() == [PREFILL if i < 5 else DECODE for i in range(part.tokens)]


@pytest.mark.long
@pytest.mark.parametrize("name", ["gpt_oss_20b_decode.npz", "deepseek_v2_lite_esft.npz"])
def test_recordings_of_large_models_fit(name: str, shared_file: Callable[[str], Path], tmp_path: Path) -> None:
    fit, _ = make(import_trace(shared_file(name)), tmp_path / "s.safetensors", tokens=60_000)
    assert_fit(fit, overlap=0.05, load=0.01, information=0.08)
