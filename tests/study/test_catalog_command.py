"""``forestage catalog``, and ``--config`` wherever a model is named."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from safetensors.numpy import save_file

from catalog import load_catalog
from study.blocks import Command, Section, Text
from study.cli import app
from study.commands.catalogue.fields import KINDS as ALL_KINDS
from study.commands.catalogue.fields import PARTS, fields_of
from study.remaking import TAKES_NO_MODEL, remade, with_model_config
from tests.study.conftest import Outcome, refused
from traces import RoutingTrace

Forestage = Callable[..., Outcome]

CONFIG = {
    "model_type": "qwen3_moe", "hidden_size": 64, "num_hidden_layers": 4, "num_experts": 8, "num_experts_per_tok": 2,
    "moe_intermediate_size": 16, "intermediate_size": 96, "num_attention_heads": 4, "num_key_value_heads": 2,
    "head_dim": 16, "decoder_sparse_step": 1, "mlp_only_layers": [3], "hidden_act": "silu", "torch_dtype": "bfloat16",
    "vocab_size": 512, "_name_or_path": "org/Tiny-Qwen",
}  # fmt: skip


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "config.json"
    path.write_text(json.dumps(CONFIG))
    return path


@pytest.fixture
def unnamed(tmp_path: Path) -> Path:
    """A recording of 3 layers, top-2, that names no model."""
    ids = np.random.default_rng(0).random((40, 3, 8)).argsort(-1)[..., :2].astype(np.uint8)
    np.savez(tmp_path / "recording.npz", expert_ids=ids, seq_offsets=np.arange(0, 41, 4))
    line = json.dumps({"dataset": "d", "category": "c", "n_tokens": 4, "n_prompt_tokens": 1})
    (tmp_path / "recording.sequences.jsonl").write_text((line + "\n") * 10)
    return tmp_path / "recording.npz"


def test_a_model_is_added_once_and_known_from_then_on(
    forestage: Forestage, config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "settings"))
    assert "'Tiny-Qwen' is not in the catalogue" in refused(forestage("pim", "expert-stream", "--model", "Tiny-Qwen"))
    added = json.loads(forestage("catalog", "add", config, "--source", "mirror X", "--json").out)
    assert (added["name"], added["moe_layers"], added["experts"], added["top_k"]) == ("org/Tiny-Qwen", 3, 8, 2)
    assert Path(added["file"]) == tmp_path / "settings" / "forestage" / "catalogue.toml"
    assert (
        json.loads(forestage("pim", "expert-stream", "--model", "Tiny_Qwen-Instruct", "--json").out)["expert_bytes"]
        == 6144
    )
    assert "is there already; give --replace" in refused(forestage("catalog", "add", config))
    assert forestage("catalog", "add", config, "--replace", "--set", "top_k=4").status == 0
    shown = json.loads(forestage("catalog", "show", "tiny-qwen", "--json").out)
    fields = {field["field"]: field for field in shown["fields"]}
    assert (fields["top_k"]["value"], fields["top_k"]["evidence"]) == (4, "assumption")
    assert fields["experts"]["evidence"] == "P"
    assert "mirror X" not in fields["experts"]["source"]  # replaced without it
    listed = json.loads(forestage("catalog", "list", "--json").out)["records"]
    assert listed[-1]["name"] == "org/Tiny-Qwen"
    assert len(listed) == len(load_catalog().models)


def test_what_cannot_be_added_leaves_no_file(forestage: Forestage, config: Path, tmp_path: Path) -> None:
    to = tmp_path / "mine.toml"
    for more, message in (
        (("--name", "gpt-oss-20b"), "'gpt-oss-20b' is in the catalogue already"),
        (("--set", "top_k=99"), "exceeds experts"),
        (("--set", "topk=2"), "unknown key 'topk'; the nearest known key is 'top_k'"),
        (("--set", "attention"), "write name=value"),
    ):
        line = refused(forestage("catalog", "add", config, "--to", to, *more))
        assert message in line
    assert not to.exists()


def test_one_command_knows_the_model_and_the_next_does_not(forestage: Forestage, config: Path, unnamed: Path) -> None:
    assert "names no model" in refused(forestage("trace", "info", unnamed))
    info = json.loads(forestage("trace", "info", unnamed, "--config", config, "--json").out)
    assert (info["experts"], info["metadata"]["model"], info["metadata"]["layer_map"]) == (
        8,
        "org/Tiny-Qwen",
        [0, 1, 2],
    )
    info = json.loads(forestage("trace", "info", unnamed, "--config", config, "--model", "Mine", "--json").out)
    assert info["metadata"]["model"] == "Mine"
    assert "names no model" in refused(forestage("trace", "info", unnamed))
    assert "'org/Tiny-Qwen' is not in" in refused(forestage("pim", "expert-stream", "--model", "org/Tiny-Qwen"))


def test_a_trace_of_the_projects_own_names_its_model(
    forestage: Forestage, config: Path, unnamed: Path, tmp_path: Path
) -> None:
    out = tmp_path / "trace.safetensors"
    assert forestage("trace", "import", unnamed, "--config", config, "--model", "Mine", "--out", out).status == 0
    simulate = ("system", "simulate", "--trace", out, "--json")
    assert "'Mine' is not in the catalogue" in refused(forestage(*simulate))
    result = json.loads(forestage(*simulate, "--config", config).out)
    assert (result["sizes_of"], result["expert_bytes"]) == ("org/Tiny-Qwen", 6144)
    assert forestage("cache", "compare", "--trace", out, "--config", config).status == 0
    assert "the file names its model; leave it out" in refused(
        forestage("trace", "stats", out, "--config", config, "--model", "Mine")
    )
    config.write_text(json.dumps({**CONFIG, "num_experts": 16}))
    assert "16 experts a layer, but" in refused(forestage("trace", "stats", out, "--config", config))
    config.write_text(json.dumps({**CONFIG, "mlp_only_layers": [1]}))
    assert "no experts in layer 1, but" in refused(forestage("trace", "stats", out, "--config", config))


def served(path: Path, model: str) -> Path:
    """A recording of 3 layers, top-2 of 8, that calls its model by what a server calls it."""
    head = {
        "record_type": "metadata",
        "format": "moe-cache-lab.routing-jsonl",
        "format_version": 1,
        "source_text": None,
    }
    lines = [{**head, "model_id": model, "num_experts": 8, "experts_per_token": 2, "capture_method": "logits"}]
    for token in range(6):
        for layer in range(3):
            row = {"phase": "generated", "token_position": token, "layer": layer, "token_id": None}
            chosen = [token % 4, 4 + layer]
            lines.append(
                {"record_type": "routing_selection", **row, "selected_experts": chosen, "selected_probabilities": []}
            )
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def test_a_recordings_own_name_goes_before_that_of_a_configurations_folder(
    forestage: Forestage, config: Path, tmp_path: Path
) -> None:
    out, source = tmp_path / "t.safetensors", served(tmp_path / "t.jsonl", "b4")
    imported = forestage("trace", "import", source, "--config", config, "--out", out)
    assert imported.status == 0, imported.err
    assert RoutingTrace.load(out).metadata.model == "b4"
    assert f"the file calls its model b4; its shape is that of --config {config}" in imported.err
    assert "--model" not in imported.err
    # The bytes of its experts are the configuration's, under the recording's name.
    simulate = ("cache", "simulate", "--trace", source, "--config", config, "--capacity-mib", 0.02, "--json")
    assert json.loads(forestage(*simulate).out)["results"][0]["capacity_bytes"] == round(0.02 * 2**20)
    assert forestage("trace", "import", source, "--config", config, "--model", "Mine", "--out", out).status == 0
    assert RoutingTrace.load(out).metadata.model == "Mine"


def test_a_configuration_of_another_model_than_the_files_is_named_as_typed(
    forestage: Forestage, config: Path, tmp_path: Path
) -> None:
    source = served(tmp_path / "t.jsonl", "openai/gpt-oss-20b")
    line = refused(forestage("trace", "import", source, "--config", config, "--out", tmp_path / "t.safetensors"))
    assert f"--config {config}: the file says that it is of openai/gpt-oss-20b" in line
    assert "--model" not in line


def test_a_synthetic_trace_takes_the_shape_of_a_configuration(
    forestage: Forestage, config: Path, small_trace: Path, tmp_path: Path
) -> None:
    out = tmp_path / "made.safetensors"
    made = forestage("trace", "synthesise", "--from", small_trace, "--out", out, "--config", config, "--json")
    assert json.loads(made.out)["metadata"]["model"] == "org/Tiny-Qwen"


def test_every_command_that_names_a_model_takes_a_configuration() -> None:
    for path, command in clicked(typer.main.get_command(app)).items():
        names = {parameter.name for parameter in command.params}
        if {"sizes_of", "like", "trace"} & names or ("model" in names and path != ("trace", "capture")):
            assert "model_config" in names, path


def test_a_remade_figure_has_the_configuration_of_its_study(tmp_path: Path) -> None:
    options = {
        path: {declaration for option in command.params for declaration in option.opts}
        for path, command in clicked(typer.main.get_command(app)).items()
    }
    config = tmp_path / "config.json"
    for path, known in options.items():
        line = " ".join(("forestage", *path))
        if "--model-config" in known:
            assert with_model_config(line, config) == f"{line} --model-config {config}"
        elif "--config" in known:
            assert with_model_config(line, config) == f"{line} --config {config}"
    for line in TAKES_NO_MODEL:
        assert not {"--config", "--model-config"} & options[tuple(line.split()[1:])]
        assert with_model_config(line, config) == line
    assert with_model_config("forestage trace stats t", None) == "forestage trace stats t"


def clicked(command: Any, path: tuple[str, ...] = ()) -> dict[tuple[str, ...], Any]:
    """Every command below a group, by its words."""
    if not hasattr(command, "commands"):
        return {path: command}
    found: dict[tuple[str, ...], Any] = {}
    for name, inner in command.commands.items():
        found |= clicked(inner, (*path, name))
    return found


def test_a_report_prints_commands_with_the_configuration(config: Path, tmp_path: Path) -> None:
    section = Section(id="x", title="x", blocks=(Text("t"), Command("forestage trace stats T\nforestage pim check")))
    (_, shown) = remade(section, config).blocks
    assert isinstance(shown, Command)
    assert shown.text == f"forestage trace stats T --config {config}\nforestage pim check"


@pytest.mark.parametrize("kind", ALL_KINDS)
def test_every_field_of_a_record_is_documented(forestage: Forestage, kind: str) -> None:
    document = json.loads(forestage("catalog", "fields", "--kind", kind, "--json").out)
    for table in document["tables"]:
        for field in table["fields"]:
            timing = kind == "dram" and field["field"].endswith("_ck")  # JEDEC's, by their names
            if not timing and field["field"] != "kind":
                assert field["meaning"], (table["of"], field["field"])


def test_the_page_on_the_catalogue_has_every_field_of_a_model() -> None:
    page = (Path(__file__).parents[2] / "docs" / "catalogue.md").read_text(encoding="utf-8")
    for model in (ALL_KINDS["model"], *PARTS["model"]):
        for field in fields_of(model):
            if field["field"] != "kind":
                assert f"| `{field['field']}` | {field['meaning'].replace('``', '`')} |" in page, field["field"]
    for record in load_catalog().models:
        assert f"`{record.name}`" in page, record.name


def test_the_page_on_the_catalogue_has_every_host_memory_with_its_machines() -> None:
    page = (Path(__file__).parents[2] / "docs" / "catalogue.md").read_text(encoding="utf-8")
    catalog = load_catalog()
    for record in catalog.host_memories:
        (line,) = (line for line in page.splitlines() if line.startswith(f"| `{record.name}`"))
        figures = (record.memory_gb_per_s, record.usable_bytes_per_s / 1e9, record.compute_tflops, record.latency_us)
        assert [float(cell) for cell in line.split("|")[2:6]] == [round(figure, 1) for figure in figures]
        machines = [machine.name for machine in catalog.machines if machine.host_memory == record.name]
        assert line.split("|")[6].strip() == ", ".join(f"`{name}`" for name in machines)


def test_a_host_memory_is_listed_and_shown(forestage: Forestage) -> None:
    listed = json.loads(forestage("catalog", "list", "--kind", "host_memory", "--json").out)
    assert [record["name"] for record in listed["records"]] == list(load_catalog().host_memories.names())
    shown = json.loads(forestage("catalog", "show", "Grace", "--json").out)
    fields = {field["field"]: (field["value"], field["evidence"]) for field in shown["fields"]}
    assert (shown["kind"], fields["memory_utilisation"]) == ("host_memory", (0.85, "assumption"))


def test_list_and_show_refuse_what_is_not_there(forestage: Forestage) -> None:
    assert "unknown name 'modle'; the nearest known name is 'model'" in refused(
        forestage("catalog", "list", "--kind", "modle")
    )
    assert "nearest known name is 'H100-80GB'" in refused(forestage("catalog", "show", "H101-80GB"))
    assert "H100" in forestage("catalog", "list", "--kind", "machine").out
    assert forestage("catalog", "show", "HBM3").status == 0


def test_router_logits_follow_the_rule_of_the_configuration(forestage: Forestage, tmp_path: Path) -> None:
    """The model_type tells how routers choose; neither an option nor a name makes them choose otherwise."""
    shape = {"num_hidden_layers": 3, "hidden_size": 32, "num_attention_heads": 2, "num_key_value_heads": 1,
             "head_dim": 16, "vocab_size": 64, "dtype": "bfloat16", "num_experts_per_tok": 2,
             "intermediate_size": 32}  # fmt: skip
    families = {
        "mixtral": {"num_local_experts": 8},
        "glm4_moe": {"n_routed_experts": 8, "moe_intermediate_size": 16, "first_k_dense_replace": 0,
                     "n_shared_experts": 1, "n_group": 1, "topk_group": 1},
    }  # fmt: skip
    for family, own in families.items():
        (tmp_path / f"{family}.json").write_text(json.dumps({"model_type": family, **shape, **own}))
    logits = np.random.default_rng(0).normal(size=(3, 10, 8)).astype(np.float32)
    save_file({f"router_logits.{n}": part for n, part in enumerate(logits)}, tmp_path / "l.safetensors")
    out = tmp_path / "t.safetensors"

    def importing(family: str, *more: str) -> Outcome:
        config = tmp_path / f"{family}.json"
        return forestage("trace", "import", tmp_path / "l.safetensors", "--config", config, "--out", out, *more)

    assert importing("mixtral").status == 0
    chosen = RoutingTrace.load(out).expert_ids
    np.testing.assert_array_equal(chosen, np.argsort(-logits, axis=-1)[..., :2].transpose(1, 0, 2))
    assert "--select logits: " in refused(importing("glm4_moe", "--select", "logits"))
    assert "--selection-bias" in refused(importing("glm4_moe"))
    assert "--model mixtral: its configuration is of glm4_moe" in refused(importing("glm4_moe", "--model", "mixtral"))
    line = refused(importing("glm4_moe", "--model", "Qwen3-30B-A3B"))
    assert "is no configuration of Qwen3-30B-A3B" in line
