"""``forestage pim gemv``, ``expert``, ``shapes``, ``roofline`` and ``timeline``."""

import json
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from typer.testing import CliRunner

from catalog import ForestageError
from study.cli import app


def document(*arguments: str) -> dict:
    result = CliRunner().invoke(app, ["pim", *arguments, "--json"], catch_exceptions=False)
    assert result.exit_code == 0
    return json.loads(result.stdout)


def test_gemv_prints_one_document() -> None:
    shape = ("--out-features", "256", "--in-features", "384")
    result = document("gemv", "--device", "HBM2-PIM", "--kernel", "pingpong", *shape, "--refresh", "off")
    assert {"compute_cycles", "readout_cycles", "fraction_of_limit"} <= set(result)
    assert result["fraction_of_limit"] == pytest.approx(256 * 384 * 2 / 64 / result["compute_cycles"])
    samsung = document("gemv", "--kernel", "samsung", *shape, "--pseudo-channels", "4")
    assert samsung["rows"] == 64
    assert samsung["refresh"] is True


def test_devices_may_come_from_a_file(tmp_path: Path) -> None:
    from pim_model.dram.devices import find_device

    record = find_device("HBM2-PIM").model_dump(mode="json", exclude={"field_sources", "aliases", "pim", "tccd_r_ck"})
    lines = ["[[dram]]", *(f"{key} = {json.dumps(value)}" for key, value in record.items())]
    lines.append("pim = { blocks = 8, banks_per_block = 2, datapath_bits = 256, operation_interval_ck = 6 }")
    path = tmp_path / "slow.toml"
    path.write_text("\n".join(lines).replace('name = "HBM2-PIM"', 'name = "slow"'))
    shape = ("--out-features", "256", "--in-features", "384", "--refresh", "off")
    slow, quick = document("gemv", "--device", str(path), *shape), document("gemv", *shape)
    # AttAcc's power limit: an operation every 6 clocks.
    assert slow["device"] == "slow"
    assert slow["compute_cycles"] / quick["compute_cycles"] == pytest.approx(1.5, rel=0.02)


def test_expert_compares_three_ways_with_a_bound_each() -> None:
    result = document("expert", "--model", "Qwen3-30B-A3B", "--device", "HBM3", "--tokens", "2")
    assert result["format"] == "bf16"
    memory, pins = result["in_memory"], result["over_pins"]
    assert memory["cycles"] == sum(memory[f"{part}_cycles"] for part in ("input", "compute", "readout", "output"))
    assert memory["bound"]["time_s"] < memory["time_s"] < pins["time_s"]
    assert pins["bound"]["time_s"] <= pins["time_s"]
    assert memory["energy_j"] == pytest.approx(sum(memory["energy_parts_j"].values()))
    assert memory["energy_j"] < pins["energy_j"]
    for host in result["host"]:
        assert host["bound"]["time_s"] < host["time_s"]
    # From how many tokens on the pins win: with one fewer memory does.
    lost = result["slower_than_pins_from_tokens"]
    for tokens, faster in ((lost, False), (lost - 1, True)):
        again = document("expert", "--model", "Qwen3-30B-A3B", "--device", "HBM3", "--tokens", str(tokens))
        assert (again["in_memory"]["time_s"] <= again["over_pins"]["time_s"]) is faster


def test_expert_takes_a_described_model(tmp_path: Path) -> None:
    config = {
        "model_type": "qwen3_moe", "num_hidden_layers": 2, "num_experts": 8, "num_experts_per_tok": 2,
        "hidden_size": 256, "moe_intermediate_size": 128, "torch_dtype": "bfloat16", "decoder_sparse_step": 1,
        "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 64, "vocab_size": 1000, "mlp_only_layers": [],
    }  # fmt: skip
    path = tmp_path / "config.json"
    path.write_text(json.dumps(config))
    result = document("expert", "--config", str(path))
    assert result["weight_bytes"] == 3 * 256 * 128 * 2


def test_tables_for_people_too() -> None:
    for command in (
        ("gemv", "--out-features", "64", "--in-features", "64"),
        ("expert", "--model", "OLMoE-1B-7B"),
        ("timeline", "--out-features", "16", "--in-features", "16"),
    ):
        result = CliRunner().invoke(app, ["pim", *command], catch_exceptions=False)
        assert result.exit_code == 0
        assert len(result.stdout.splitlines()) > 5


def test_shapes_have_a_row_for_every_case() -> None:
    rows = document("shapes", "--device", "HBM2-PIM")["shapes"]
    # Samsung's kernel, BF16 with 1, 2 and 4 tokens, INT8 with 1 and 2, MXFP4; five shapes each.
    assert len(rows) == 7 * 5
    for row in rows:
        floor = (0.98, 0.88) if row["kernel"] == "pingpong" else (0.67, 0.60)
        assert floor[0] < row["fraction_of_limit"] <= row["bound_fraction"]
        assert floor[1] < row["refreshed_mean_fraction"] <= row["refreshed_bound_fraction"]


def test_pictures_are_written_and_say_what_they_show(tmp_path: Path) -> None:
    roofline, timeline = tmp_path / "roofline.svg", tmp_path / "timeline.svg"
    stacks = document("roofline", "--model", "Qwen3-30B-A3B", "--device", "HBM2-PIM", "--figure", str(roofline))
    (stack,) = stacks["stacks"]
    for point in stack["points"]:
        # No point above a roof.
        assert point["gop_per_s"] < stack["peak_gop_per_s"]
        once = point["gop_per_s"] / point["operations_per_byte"]
        assert once < stack["limit_gb_per_s"]
    commands = document("timeline", "--refresh-in", "640", "--figure", str(timeline))["commands"]
    assert [row["command"] for row in commands].count("REFAB") == 1
    for path, words in ((roofline, "HBM2-PIM, one stack"), (timeline, "refresh")):
        assert ET.parse(path).getroot().tag.endswith("svg")
        assert words in path.read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("gemv", "--out-features", "0", "--in-features", "8"), "--out-features 0: is 0; give at least 1"),
        (("gemv", "--out-features", "8", "--in-features", "8", "--device", "HBM2"), "no compute at its banks"),
        (
            ("gemv", "--out-features", "8", "--in-features", "8", "--kernel", "samsung", "--format", "int8"),
            "--format int8: the published part",
        ),
        (("expert", "--model", "DeepSeek-V3"), "fp8 weights"),
        (("expert", "--model", "Switch-base-128", "--format", "bf16"), "activation: relu with 2 matrices"),
        (("expert", "--model", "nothing"), "nearest"),
        (("timeline", "--out-features", "4000", "--figure", "x.svg"), "a picture shows 4000"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(
    arguments: tuple[str, ...], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ForestageError, match=message.replace(".", r"\.")) as caught:
        CliRunner().invoke(app, ["pim", *arguments], catch_exceptions=False, standalone_mode=False)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())
