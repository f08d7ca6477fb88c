"""Loading the catalogue: the shipped files, the user's, and every mistake in them."""

import os
from contextlib import suppress
from pathlib import Path

import pytest

from catalog import Catalog, Evidence, ForestageError, find_model, load_catalog
from catalog.catalogue import parse_records, registered, user_catalogue
from catalog.record_file import add_record, record_toml
from catalog.records import Record

MODEL = """
[[model]]
name = "toy"
aliases = ["toys/Toy_MoE"]
source = "a test"
evidence = "assumption"
layers = 2
experts = 4
top_k = 2
hidden = 8
expert_intermediate = 16
expert_weight_format = "bf16"
bits_per_weight = 16
"""

MACHINE = """
[[machine]]
name = "box"
source = "a test"
evidence = "assumption"
compute_tflops = 10
memory_gb_per_s = 100
engine_clock_ghz = 1.0
engine_bus_bits = 512
"""


def write(folder: Path, text: str, name: str = "mine.toml") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def every_record(catalog: Catalog) -> list[Record]:
    return [*catalog.models, *catalog.dram, *catalog.energy, *catalog.machines, *catalog.host_memories, *catalog.sram]


def test_every_shipped_value_has_a_source() -> None:
    for record in every_record(load_catalog()):
        assert len(record.source) > 5, record.name
        for field in set(type(record).model_fields) - set(Record.model_fields):
            assert record.source_of(field).source, (record.name, field)
        # What no one published says so: the engine's clock and bus on every machine.
        if "engine_clock_ghz" in type(record).model_fields:
            for field in ("engine_clock_ghz", "engine_bus_bits"):
                assert record.source_of(field).evidence is Evidence.ASSUMPTION


@pytest.mark.parametrize(
    ("name", "record"),
    [
        ("gpt-oss-20b", "gpt-oss-20b"),
        ("openai/gpt-oss-20b", "gpt-oss-20b"),
        ("GPT_OSS_20B", "gpt-oss-20b"),
        ("deepseek-ai/DeepSeek-V2-Lite-Chat", "DeepSeek-V2-Lite"),
        ("deepseek-ai/ESFT-vanilla-lite", "DeepSeek-V2-Lite"),
        ("Qwen/Qwen3-30B-A3B-Instruct-2507", "Qwen3-30B-A3B"),
        ("Qwen3-30B-A3B-Q4_K_M", "Qwen3-30B-A3B-Q4_K_M"),
        ("mistralai/Mixtral-8x7B-Instruct-v0.1", "Mixtral-8x7B"),
        ("google_gemma-4-26B-A4B-it-Q4_K_M", "gemma-4-26B-A4B-Q4_K_M"),
        ("forestage-small-moe", "forestage-small-moe"),
    ],
)
def test_a_traces_model_string_finds_its_record(name: str, record: str) -> None:
    assert find_model(name).name == record


@pytest.mark.parametrize("name", ["gpt-oss-20b-AWQ", "Qwen3-30B-A3B-FP8", "Qwen3-30B-A3B-GGUF", "", "gpt-oss"])
def test_another_weight_format_is_another_model(name: str) -> None:
    assert load_catalog().match_model(name) is None
    with pytest.raises(ForestageError, match=r"is not in the catalogue; the nearest known is '.+'") as caught:
        find_model(name)
    # Both ways out.
    assert "--config config.json" in str(caught.value)
    assert "forestage catalog add config.json" in str(caught.value)


def test_a_registered_model_goes_before_the_catalogues_and_is_gone_afterwards() -> None:
    mine = find_model("gpt-oss-20b").model_copy(update={"name": "DeepSeek-R1", "aliases": ()})
    with registered(mine, "config.json"):
        assert find_model("deepseek-ai/DeepSeek-R1-0528") is mine
        assert find_model("DeepSeek-V3").name == "DeepSeek-V3"
        with registered(mine.model_copy(update={"name": "inner"}), "config.json"):
            assert find_model("inner").experts == 32
        with pytest.raises(ForestageError, match="'inner' is not in the catalogue"):
            find_model("inner")
    assert find_model("DeepSeek-R1").name == "DeepSeek-V3"


def test_the_users_file_is_always_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    assert user_catalogue() == tmp_path / "forestage" / "catalogue.toml"
    assert load_catalog().models.get("toy") is None
    user_catalogue().parent.mkdir()
    user_catalogue().write_text(MODEL)
    assert find_model("toy").experts == 4
    monkeypatch.setenv("XDG_CONFIG_HOME", "relative")  # as the specification of these folders asks
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert user_catalogue() == tmp_path / "home" / ".config" / "forestage" / "catalogue.toml"


def test_a_record_written_is_the_record_read(tmp_path: Path) -> None:
    catalog = load_catalog()
    path = tmp_path / "all.toml"
    for kind, records in (
        ("model", catalog.models),
        ("machine", catalog.machines),
        ("dram", catalog.dram),
        ("host_memory", catalog.host_memories),
        ("sram", catalog.sram),
    ):
        for record in records:
            for own, again in parse_records("written", record_toml(kind, record)):
                assert (own, again) == (kind, record)
    odd = catalog.find_model("gpt-oss-20b").model_copy(update={"name": 'a "b"\\ \u00e4\n', "aliases": ()})
    add_record(path, "model", odd)
    add_record(path, "model", catalog.find_model("Qwen3-Next-80B-A3B").model_copy(update={"name": "b", "aliases": ()}))
    with pytest.raises(ForestageError, match=r"all\.toml: model 'b' is there already; give --replace"):
        add_record(path, "model", odd.model_copy(update={"name": "b"}))
    add_record(path, "model", odd.model_copy(update={"name": "b", "top_k": 2}), replace=True)
    assert [(r.name, r.top_k) for _, r in parse_records("x", path.read_text())] == [(odd.name, 4), ("b", 2)]  # type: ignore[attr-defined]
    path.write_text("[[model]\n")
    with pytest.raises(ForestageError, match="not valid TOML"):
        add_record(path, "model", odd)
    assert path.read_text() == "[[model]\n"
    assert [file.name for file in tmp_path.iterdir()] == ["all.toml"]
    (tmp_path / "file").touch()
    with pytest.raises(ForestageError, match=r"x\.toml: cannot"):
        add_record(tmp_path / "file" / "x.toml", "model", odd)


def test_a_record_that_answers_to_anothers_name_is_not_added(tmp_path: Path) -> None:
    path = tmp_path / "own.toml"
    record = load_catalog().find_model("gpt-oss-20b").model_copy(update={"name": "Twice", "aliases": ()})
    add_record(path, "model", record)
    before = path.read_text()
    with pytest.raises(ForestageError, match=r"own\.toml: model 'Twice' is there already"):
        add_record(path, "model", record.model_copy(update={"name": "twice"}))
    with pytest.raises(ForestageError, match=r"own\.toml: model 'other': the name 'twice' is taken by 'Twice'"):
        add_record(path, "model", record.model_copy(update={"name": "other", "aliases": ("TWICE",)}))
    assert path.read_text() == before
    add_record(path, "model", record.model_copy(update={"name": "twice", "top_k": 2}), replace=True)
    assert [(r.name, r.top_k) for _, r in parse_records("x", path.read_text())] == [("twice", 2)]  # type: ignore[attr-defined]


def test_records_are_found_by_name_alias_and_nearest() -> None:
    catalog = load_catalog()
    assert catalog.machines.find("h100").name == "H100-80GB"
    assert catalog.dram.find("hbm3_6400").name == "HBM3"
    assert catalog.energy.names()[0] == "oconnor-2017"
    assert len(catalog.dram) == len(list(catalog.dram)) == 5
    with pytest.raises(ForestageError, match="machine 'H10' is not in the catalogue; the nearest known is 'H100-80GB'"):
        catalog.machines.find("H10")


def test_users_add_files_and_folders_by_argument_and_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path, MODEL)
    (tmp_path / "folder").mkdir()
    write(tmp_path / "folder", MACHINE)
    assert load_catalog(path).find_model("Toy-MoE").expert_bytes == 3 * 8 * 16 * 2
    both = load_catalog([path, tmp_path / "folder"])
    assert (both.find_model("toy").name, both.machines.find("box").name) == ("toy", "box")
    monkeypatch.setenv("FORESTAGE_CATALOG", os.pathsep.join([str(path), str(tmp_path / "folder"), ""]))
    assert find_model("toy").name == "toy"
    assert load_catalog().machines.find("box").memory_gb_per_s == 100


MISTAKES: dict[str, tuple[str, str]] = {
    "unknown key": (MODEL + "hiden = 3", r"model 'toy': unknown key 'hiden'; the nearest known key is 'hidden'"),
    "unknown table": (MODEL.replace("[[model]]", "[[modle]]"), r"unknown table 'modle'; .*'\[\[model\]\]'"),
    "single table": (MODEL.replace("[[model]]", "[model]"), r"'model' must be an array of tables: write \[\[model\]\]"),
    "missing": (MODEL.replace("hidden = 8", ""), r"model 'toy': hidden: Field required"),
    "no name": (MODEL.replace('name = "toy"', ""), r"model number 1: name: Field required"),
    "no source": (MODEL.replace('source = "a test"', ""), r"model 'toy': source: Field required"),
    "evidence": (MODEL.replace('"assumption"', '"guess"'), r"model 'toy': evidence: .*'assumption'"),
    "toml": (MODEL + "x = = 3", r"not valid TOML"),
    "top_k": (MODEL.replace("top_k = 2", "top_k = 5"), r"top_k \(5\) exceeds experts \(4\)"),
    "negative": (MODEL.replace("hidden = 8", "hidden = -8"), r"hidden: Input should be greater than 0"),
    "fraction": (MODEL.replace("hidden = 8", "hidden = 8.5"), r"hidden: Input should be a valid integer"),
    "text": (MODEL.replace("hidden = 8", 'hidden = "8"'), r"hidden: Input should be a valid integer"),
    "dense": (MODEL + "dense_layers = [2]", r"dense_layers must ascend and lie below layers"),
    "all dense": (MODEL + "dense_layers = [0, 1]", r"no layer has experts"),
    "bytes for bits": (MODEL.replace("bits_per_weight = 16", "bits_per_weight = 160"), r"bits_per_weight: .*64"),
    "taken": (MODEL.replace("toy", "GPT-OSS-20B"), r"the name 'gpt-oss-20b' is taken by 'gpt-oss-20b' of models.toml"),
    "alias taken": (MODEL.replace("toys/Toy_MoE", "x/deepseek-r1"), r"'deepseek-r1' is taken by 'DeepSeek-V3'"),
    "twice": (MODEL + MODEL, r"the name 'toy' is taken by 'toy' of .*mine.toml; choose another"),
    "bytes a second": (MACHINE.replace("= 100", "= 100e9"), r"machine 'box': memory_gb_per_s: .*100000"),
    "other unit": (
        MACHINE + "memory_tb = 0.08",
        r"unknown key 'memory_tb'; the nearest known key is 'memory_gb'",
    ),
    "not a number": (MACHINE.replace("= 100", "= nan"), r"memory_gb_per_s"),
    "unit in text": (MACHINE.replace("= 100", '= "2 TB/s"'), r"memory_gb_per_s: Input should be a valid number"),
    "link without figure": (MACHINE + 'host_link = "PCIe"', r"host_link and host_link_gb_per_s come together"),
    "no such dram": (MACHINE + 'dram = "HBM9"', r"machine 'box': dram: no DRAM device is named 'HBM9'"),
    "no such host memory": (
        MACHINE + 'host_memory = "DDR9"',
        r"machine 'box': host_memory: no host memory is named 'DDR9'; add a \[\[host_memory\]\] or name one of DDR5",
    ),
    "bus": (MACHINE.replace("512", "500"), r"engine_bus_bits: .*multiple of 8"),
    "source of nothing": (
        MACHINE + '[machine.field_sources]\nmemroy_gb = { source = "a", evidence = "B" }',
        r"field_sources names 'memroy_gb', which is no value of this record",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_line_that_names_the_file(mistake: str, tmp_path: Path) -> None:
    text, message = MISTAKES[mistake]
    with pytest.raises(ForestageError, match=rf"mine\.toml: .*{message}") as caught:
        load_catalog(write(tmp_path, text))
    assert "\n" not in str(caught.value)


def test_no_quantity_of_the_catalogue_may_be_zero_or_less() -> None:
    catalog = load_catalog()
    taken = set()
    for records in (
        catalog.dram, catalog.machines, catalog.energy, catalog.models, catalog.host_memories, catalog.sram,
    ):  # fmt: skip
        for record in records:
            values = record.model_dump()
            for name in (name for name, value in values.items() if type(value) in (int, float)):
                for wrong in (0, -1):
                    with suppress(ValueError):
                        type(record).model_validate({**values, name: wrong})
                        taken.add((name, wrong))
    assert taken == {("shared_experts", 0)}  # most models have none


def test_files_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    with pytest.raises(ForestageError, match=r"absent\.toml: cannot read the file"):
        load_catalog(tmp_path / "absent.toml")
    with pytest.raises(ForestageError, match=r"the folder holds no \.toml file"):
        load_catalog(tmp_path)
    (tmp_path / "bad.toml").write_bytes(b"\xff")
    with pytest.raises(ForestageError, match=r"bad\.toml: not UTF-8"):
        load_catalog(tmp_path)
