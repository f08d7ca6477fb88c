"""``forestage system`` with memory that computes: its rows, one expert by tokens, and what is refused."""

import json
from pathlib import Path

import pytest

from tests.study.conftest import refused

SHIPPED = Path(__file__).parents[2] / "gpu_reference" / "shipped" / "trace.safetensors"
SMALL = ("--trace", SHIPPED, "--sizes-of", "gpt-oss-20b", "--tokens", 50)
STATIC = ("--eviction", "static", "--missing", "in-memory")


def test_a_comparison_has_a_point_for_each_memory_and_its_rows(forestage) -> None:
    told = forestage(
        "system", "compare", *SMALL, "--tuning-tokens", 50, "--resamples", 0, "--capacity-fraction", 0.25,
        "--host-gb-per-s", 76, "--host-tflops", 1, "--pim", "device", "--pim-stacks", 8, "--pim-stacks", 16, "--json",
    )  # fmt: skip
    assert told.status == 0, told.err
    points = json.loads(told.out)["points"]
    assert [point["config"]["in_memory"]["stacks"] for point in points] == [8, 16]
    for point in points:
        times = {line["name"]: line["outcome"]["tpot"]["mean_s"] for line in point["lines"]}
        assert {"in memory, static placement", "in memory, frequency", "from memory, LRU"} <= set(times)
        assert times["from memory, LRU"] < times["LRU"]  # 300 against 32 GB/s
        assert times["in memory, static placement"] < times["static placement"]
        static = next(line for line in point["lines"] if line["name"] == "in memory, static placement")
        one = forestage(
            "system", "simulate", *SMALL, *STATIC, "--capacity-fraction", 0.25, "--pim", "device", "--pim-stacks",
            point["config"]["in_memory"]["stacks"], "--json",
        )  # fmt: skip
        assert json.loads(one.out)["outcome"] == static["outcome"]
    plain = forestage("system", "compare", *SMALL, "--tuning-tokens", 50, "--resamples", 0, "--json")
    assert not any("memory" in line["name"] for point in json.loads(plain.out)["points"] for line in point["lines"])


def test_both_engines_find_the_same_in_memory(forestage) -> None:
    policy = ("--eviction", "decayed-frequency", "--missing", "sooner-in-memory", "--background", "--price", 100)
    memory = ("--pim", "host", "--pim-latency-us", 5, "--batch", 2)
    found = [
        json.loads(forestage("system", "simulate", *SMALL, *policy, *memory, "--engine", engine, "--json").out)
        for engine in ("compiled", "reference")
    ]
    assert found[0]["outcome"] == found[1]["outcome"]
    assert found[0]["counts"] == found[1]["counts"]
    assert min(found[0]["counts"]["computed"], found[0]["counts"]["ahead"]) > 0


def test_the_terminal_says_which_memory_computes(forestage) -> None:
    told = forestage("system", "simulate", *SMALL, *STATIC, "--pim", "device", "--pim-refresh", "off")
    assert told.status == 0, told.err
    assert "8 PIM stacks of HBM3 beside the device" in told.out
    assert "computed by the memory" in told.out
    assert "busy: link / memory" in told.out
    assert "host" not in told.out.replace("host link", "")


def test_one_expert_is_timed_by_tokens(forestage) -> None:
    told = forestage("system", "expert", "--tokens", 1, "--tokens", 12, "--host-gb-per-s", 76, "--json")
    assert told.status == 0, told.err
    document = json.loads(told.out)
    assert [row["tokens"] for row in document["times"]] == [1, 12]
    assert document["in_memory"]["where"] == "device"
    shown = forestage("system", "expert", "--model", "DeepSeek-V2-Lite", "--machine", "H100", "--pim-dram", "HBM2-PIM")
    assert shown.status == 0, shown.err
    assert "a pass of 4 tokens takes" in shown.out
    assert "Alone in memory, an expert loses to the device with its weights there from" in shown.out


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--pim-stacks", 4), "--pim-stacks: has no effect: no memory computes; leave it out, or choose --pim device"),
        (("--device-link-gb-per-s", 4), "--device-link-gb-per-s: has no effect: no memory computes"),
        (("--pim", "nowhere", *STATIC), "--pim nowhere: choose 'device' or 'host'"),
        (("--pim", "device", "--pim-stacks", 1, *STATIC), "--pim-stacks 1: 1 of 12 GB do not hold the experts of"),
        (("--pim", "device", "--pim-dram", "HBM2", *STATIC), "device HBM2 has no compute at its banks"),
        (("--pim", "device", "--pim-refresh", "sometimes", *STATIC), "--pim-refresh sometimes: choose 'on' or 'off'"),
        (("--pim", "device", "--pim-pseudo-channels", 5, *STATIC), "--pim-pseudo-channels 5: 5 in 8 stacks of 32"),
        (("--pim", "device", "--pim-format", "fp8", *STATIC), "--pim-format fp8: choose 'bf16', 'int8' or 'mxfp4'"),
        (("--pim", "host", "--device-link-gb-per-s", 9, *STATIC), "leave out device_link_gb_per_s"),
        (("--pim", "device"), "--pim: has no effect: experts lie in the host's memory"),
        (STATIC, "--missing in-memory: no memory computes; give --pim device or host"),
        (
            ("--pim", "device", "--host-tflops", 1, *STATIC),
            "--host-tflops: has no effect: the host's",
        ),
        (
            ("--pim", "device", "--missing", "in-memory"),
            "--eviction lru: has no effect: with --missing in-memory nothing is ever loaded",
        ),
        (("--pim", "device", "--missing", "fetch-from-memory", "--eviction", "static"), "a static placement fetches"),
    ],
)
def test_what_has_no_effect_or_cannot_be_is_refused(forestage, options: tuple[object, ...], said: str) -> None:
    assert said in refused(forestage("system", "simulate", *SMALL, *options))


def test_numbers_of_tokens_are_given_once_and_within_bounds(forestage) -> None:
    assert "--tokens: give each number once" in refused(forestage("system", "expert", "--tokens", 2, "--tokens", 2))
