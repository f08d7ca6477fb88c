"""Durations and bytes against figures worked out by hand from the published shapes."""

import pytest

from catalog.catalogue import load_catalog
from catalog.errors import ForestageError
from perfmodel.costs import CostModel, SimulatedLayers

CATALOG = load_catalog()


def costs(model: str = "gpt-oss-20b", machine: str = "A100", **values: float) -> CostModel:
    return CostModel(CATALOG.models.find(model), CATALOG.machines.find(machine), **values)


def test_an_expert_of_gpt_oss_takes_414_microseconds_over_pcie_4() -> None:
    # 3 · 2880 · 2880 weights of 4.25 bits and (2880 + 2880 + 2880) biases of 2 bytes.
    assert costs().expert_bytes == 13_219_200 + 17_280
    assert costs().expert_transfer_ps == 413_640_000  # 13,236,480 / 32 GB/s
    assert costs(link_gb_per_s=64).expert_transfer_ps == 206_820_000


def test_one_token_of_an_expert_is_bound_by_hbm_and_many_by_compute() -> None:
    one = costs().expert()
    assert one.hbm_ps == pytest.approx(13_236_480 / 1734e9 * 1e12, abs=1)  # 2040 GB/s · 0.85
    assert one.compute_ps == pytest.approx(6 * 2880 * 2880 / 249.6e12 * 1e12, abs=1)  # 312 TFLOPS · 0.80
    assert one.duration_ps == one.hbm_ps
    # Operations overtake bytes between 38 and 39 tokens: 7.6335 µs / 0.19938 µs = 38.3.
    assert costs().expert(38).duration_ps == one.hbm_ps
    assert costs().expert(39).duration_ps == costs().expert(39).compute_ps > one.hbm_ps
    assert costs().expert(39).hbm_bytes == one.hbm_bytes


def test_attention_reads_its_weights_and_the_context() -> None:
    weights = 2880 * 64 * (2 * 64 + 2 * 8)
    kernel = costs().attention(1000, layer=1)
    assert kernel.hbm_bytes == 2 * weights + 1000 * 2 * 8 * 64 * 2
    assert kernel.flops == 2 * weights + 1000 * 2 * 2 * 64 * 64
    assert costs().attention(1001, layer=1).hbm_bytes - kernel.hbm_bytes == 2048


def test_a_window_ends_what_is_read() -> None:
    # gpt-oss: every second layer, from the first, sees 128 tokens.
    weights = 2880 * 64 * (2 * 64 + 2 * 8)
    assert costs().attention(1000).hbm_bytes == 2 * weights + 128 * 2 * 8 * 64 * 2
    assert costs().attention(1000) == costs().attention(128) == costs().attention(128, layer=22)
    assert costs().attention(127).hbm_bytes == costs().attention(128).hbm_bytes - 2048


def test_a_state_of_fixed_size_is_read_and_written_and_does_not_grow() -> None:
    hybrid = costs("Qwen3-Next-80B-A3B")
    # Projections of queries, keys (16 · 128 each), values and gate (32 · 128 each), two gates a value head; the
    # convolution over queries, keys and values; the output.
    weights = 2048 * (2 * 2048 + 2 * 4096 + 2 * 32) + 4 * (2 * 2048 + 4096) + 4096 * 2048
    state = 32 * 128 * 128 + 4 * (2 * 2048 + 4096)
    linear = hybrid.attention(1000, layer=0)
    assert linear.hbm_bytes == 2 * weights + 2 * 4 * state
    assert linear.flops == 2 * (weights + 3 * state)
    assert hybrid.attention(50_000, layer=0) == linear
    full = 2048 * 256 * (3 * 16 + 2 * 2)  # queries, their gate and the output; keys and values
    assert hybrid.attention(1000, layer=3).hbm_bytes == 2 * full + 1000 * 2 * 2 * 256 * 2


def test_an_indexer_reads_its_keys_of_all_and_the_latents_of_some() -> None:
    sparse = costs("DeepSeek-V3.2")
    grown = sparse.attention(3001).hbm_bytes - sparse.attention(3000).hbm_bytes
    assert grown == 128 * 2
    assert sparse.attention(2001).hbm_bytes - sparse.attention(2000).hbm_bytes == (512 + 64 + 128) * 2
    assert sparse.attention(3001).flops - sparse.attention(3000).flops == 2 * 64 * 128


def test_chunks_begin_again() -> None:
    scout = costs("Llama-4-Scout-17B-16E")
    assert scout.attention(8193) == scout.attention(1)
    assert scout.attention(8192).hbm_bytes - scout.attention(8191).hbm_bytes == 2 * 8 * 128 * 2
    assert scout.attention(8193, layer=3).hbm_bytes > scout.attention(8192, layer=3).hbm_bytes


def test_a_decoder_looks_at_its_encoder_too() -> None:
    switch = costs("Switch-base-128")
    encoder, decoder = switch.attention(100, layer=0), switch.attention(100, layer=12)
    assert decoder.hbm_bytes == 2 * encoder.hbm_bytes == 2 * (4 * 768 * 768 * 2 + 100 * 2 * 768 * 2)


def test_a_simulation_runs_the_models_own_layers() -> None:
    model = CATALOG.models.find("DeepSeek-V2-Lite")
    assert SimulatedLayers.of(model, range(26), own=False) == SimulatedLayers(tuple(range(1, 27)), (0,))
    assert SimulatedLayers.of(model, (5, 9), own=True) == SimulatedLayers((5, 9), ())
    assert SimulatedLayers.of(model, (5, 9), own=False) == SimulatedLayers((1, 2), ())
    assert SimulatedLayers.of(model, range(28), own=False).routed[-2:] == (1, 2)


def test_latent_attention_reads_the_latent_alone() -> None:
    deep = costs("DeepSeek-V2-Lite")
    assert deep.attention(1001).hbm_bytes - deep.attention(1000).hbm_bytes == (512 + 64) * 2
    assert deep.attention(1001).flops - deep.attention(1000).flops == 2 * 16 * (512 + 64 + 512)


def test_gate_shared_experts_and_dense_layers() -> None:
    assert costs().gate().hbm_bytes == 2880 * 32 * 2
    assert costs().shared_experts() is None
    deep = costs("DeepSeek-V2-Lite")
    expert_bytes = 3 * 2048 * 1408 * 2
    shared = deep.shared_experts()
    assert shared is not None
    assert shared.hbm_bytes == 2 * expert_bytes
    dense = 3 * 2048 * 10944
    assert deep.dense_layer(7).hbm_bytes == deep.attention(7).hbm_bytes + 2 * dense
    assert deep.dense_layer(7).flops == deep.attention(7).flops + 2 * dense
    unsaid = CostModel(deep.model.model_copy(update={"dense_intermediate": None}), deep.machine)
    assert unsaid.dense_layer(7).hbm_bytes == deep.attention(7).hbm_bytes + 8 * expert_bytes


def test_a_dense_layer_of_deepseek_v3_is_as_wide_as_published() -> None:
    record = CATALOG.models.find("DeepSeek-V3")
    assert (record.top_k + record.shared_experts) * record.expert_intermediate == record.dense_intermediate == 18432


def test_what_the_catalogue_does_not_know_is_asked_for() -> None:
    with pytest.raises(ForestageError, match="host_link_gb_per_s: not in the catalogue; give link_gb_per_s"):
        costs(machine="ST-MoE")
    assert costs(machine="ST-MoE", link_gb_per_s=32).link_bytes_per_s == 32 * 10**9
    unknown = CATALOG.models.find("gpt-oss-20b").model_copy(update={"attention": None})
    with pytest.raises(ForestageError, match="model gpt-oss-20b: attention: not in the catalogue"):
        CostModel(unknown, CATALOG.machines.find("A100"))
