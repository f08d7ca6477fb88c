"""The commands that remake the whole system's figures say every setting of the study that is not a default."""

from pathlib import Path

from study.config import StudyConfig
from study.stages import StudyContext
from study.system.commands import in_memory_remaking, remaking
from tests.routing import trace_of


def commands(**settings: object) -> list[str]:
    return remaking(context_of(**settings)).splitlines()


def context_of(**settings: object) -> StudyContext:
    config = StudyConfig.parse({"system": {"machine": "A100-80GB", **settings}}, origin="test")
    return StudyContext(
        trace=trace_of([[[0]]], experts=2), trace_path=Path("t.safetensors"), config=config, out=Path(),
        left_out={"learned": "", "next_use": ""},
    )  # fmt: skip


def test_each_map_has_a_command_of_its_own() -> None:
    points, by_link, by_host = commands(
        capacity_fractions=[0.5, 1 / 3], link_gb_per_s=[64, 16.5], map_host_gb_per_s=[300, 60], map_tokens=50
    )
    common = "forestage system compare --trace t.safetensors --machine A100-80GB"
    shares = f"--capacity-fraction {1 / 3!r} --capacity-fraction 0.5"
    assert points == f"{common} {shares}"
    few = "--tokens 50 --tuning-tokens 50"
    assert by_link == f"{common} {shares} --link-gb-per-s 16.5 --link-gb-per-s 64 {few}"
    assert by_host == f"{common} --host-gb-per-s 60 --host-gb-per-s 300 {shares} {few}"


def test_tuning_is_told_where_it_is_not_the_commands_default() -> None:
    points, by_link, _ = commands(tokens=70, tuning_tokens=40, map_tokens=50)
    assert points.endswith("--tokens 70 --tuning-tokens 40")
    assert by_link.endswith("--tokens 50 --tuning-tokens 40")


def test_the_hosts_settings_are_told_and_the_second_map_replaces_its_memory() -> None:
    points, by_link, by_host = commands(host_gb_per_s=76, host_tflops=1.5)
    assert "--host-gb-per-s 76 --host-tflops 1.5" in points
    assert "--host-gb-per-s 76 --host-tflops 1.5" in by_link
    assert "--host-gb-per-s 76 " not in by_host
    assert "--host-gb-per-s 500 --host-tflops 1.5" in by_host


def test_the_memory_is_told_where_it_is_not_the_commands_default() -> None:
    settings = {"sizes_of": "gpt-oss-20b", "map_tokens": 50, "capacity_fraction": 0.25}
    expert, alone, batch = in_memory_remaking(context_of(**settings), [1, 16]).splitlines()
    assert expert == "forestage system expert --model gpt-oss-20b --machine A100-80GB --pim device"
    common = "forestage system compare --trace t.safetensors --machine A100-80GB --sizes-of gpt-oss-20b --pim device"
    assert alone == f"{common} --capacity-fraction 0 --capacity-fraction 0.25 --tokens 50 --tuning-tokens 50"
    assert batch == f"{alone} --batch 16"
    memory = {"where": "host", "stacks": 4, "refresh": False, "latency_us": 2.5, "partial_sums": "stack"}
    (expert, _) = in_memory_remaking(context_of(**settings, in_memory=memory), [1]).splitlines()
    assert expert.endswith("--pim host --pim-stacks 4 --pim-latency-us 2.5 --pim-partial-sums stack --pim-refresh off")
