"""Every command refuses what it cannot do before it begins: the worker of each is replaced by one that fails."""

import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer

import study.commands.system.comparing  # so that it is not first imported while work is replaced
import study.commands.system.simulating  # noqa: F401
from study.cli import app
from study.stages import PACKAGES
from tests.routing import trace_of
from tests.study.conftest import Outcome, refused
from traces.expert_load import ExpertLoad, LoadMetadata

Forestage = Callable[..., Outcome]

WORKERS = (
    "cocotb_tests.lock_step.run_lock_step",
    "cocotb_tests.pim_unit.replay.replay_unit",
    "cocotb_tests.prefetch_engine.replay.replay_in_turn",
    "cocotb_tests.prefetch_engine.run.run_in_turn",
    "gpu_reference.measuring.suite.run_suite",
    "gpu_reference.perplexity.measure_perplexity",
    "gpu_reference.perplexity.read_held_out",
    "gpu_reference.checks.model_replay.replay_check",
    "gpu_reference.checks.routing_replay.replay_routing",
    "perfmodel.comparison.compare",
    "predictor.policies.parts.part_of",
    "perfmodel.simulator.Simulator.run",
    "perfmodel.simulator.Simulator.run_reference",
    "predictor.row_network.predictor.write_image",
    "predictor.row_network.training._Run",
    "predictor.measure.metrics.tally_predictor",
    "predictor.next_use.training.train",
    "predictor.registry.fit",
    "predictor.st_moe.predictor.StMoePredictor.fit",
    "rtl.generate.generate",
    "staging.simulate.run_policy",
    "study.run.run_stages",
    "study.trace_profile.trace_profile",
    "traces.batch.make_schedule",
    "traces.synthesis.synthesise",
)
"""Where the work of the commands is done; names that a command's module holds are replaced there too."""

CASES: list[tuple[str, str, str]] = [
    # command ("TRACE", "OUT", "FOLDER" are put in), trace, what the line says
    ("system simulate --trace TRACE", "unknown", "not in the catalogue"),
    ("system simulate --prefetch st-moe --trace TRACE", "unknown", "not in the catalogue"),
    ("system simulate --prefetch st-moe --trace TRACE --sizes-of gpt-oss-20b", "unknown", "same shape"),
    ("system simulate --prefetch st-moe --trace TRACE --machine A100-81GB", "good", "A100-80GB"),
    ("system simulate --prefetch st-moe --trace TRACE", "one_layer", "one layer"),
    ("system simulate --prefetch st-moe --trace TRACE --distance 3", "good", "1…2"),
    ("system simulate --prefetch st-moe --trace TRACE --issue-limit 33", "good", "1 to 32"),
    ("system simulate --prefetch st-moe --trace TRACE --drafted 2", "good", "leave one of the two out"),
    ("system simulate --prefetch st-moe --trace TRACE", "one_sequence", "no test sequences"),
    ("system simulate --prefetch learned --trace TRACE", "good", "predictor train"),
    ("system simulate --eviction learned --trace TRACE", "good", "train-next-use"),
    ("system simulate --eviction learned --next-use none.safetensors --trace TRACE", "good", "none.safetensors"),
    ("system simulate --trace TRACE", "gaps", "not recorded"),
    ("system simulate --trace TRACE --batch 2", "prefill", "prompts alone"),
    ("system simulate --trace TRACE --batch 2 --drafted 2", "good", "one of the two"),
    ("system simulate --eviction static --missing host --machine Sieve-B200 --trace TRACE", "good", "--host-gb-per-s"),
    ("system compare --trace TRACE", "unknown", "not in the catalogue"),
    ("system compare --trace TRACE --sizes-of gpt-oss-20b", "unknown", "same shape"),
    ("system compare --trace TRACE --machine A100-81GB", "good", "A100-80GB"),
    ("system compare --trace TRACE", "one_sequence", "no test sequences"),
    ("system compare --trace TRACE --batch 2 --drafted 2", "good", "one of the two"),
    ("system compare --trace TRACE", "gaps", "not recorded"),
    ("rtl replay --unit table-engine --trace TRACE", "wide", "--experts-max 128"),
    ("rtl replay --unit table-engine --trace TRACE", "one_layer", "one layer"),
    ("rtl replay --unit table-engine --trace TRACE --tokens 1000", "good", "choose 1 to"),
    ("rtl replay --unit table-engine --trace TRACE", "one_sequence", "no test sequences"),
    ("rtl replay --unit table-engine --trace TRACE --set candidate=3", "good", "candidates"),
    ("rtl replay --unit table-engine --trace TRACE --set candidates=9 ", "good", "--candidates-max 9"),
    ("rtl replay --unit table-engine --trace TRACE --mode tables", "good", "--mode: has no effect"),
    ("rtl replay --unit table-engine --trace TRACE --places 4", "good", "--places: has no effect"),
    ("rtl replay --unit tables --trace TRACE", "good", "nearest known name is 'table-engine'"),
    ("rtl replay --trace TRACE --tokens 12", "many_chosen", "top_k_max: Input should be less than or equal to 8"),
    ("rtl replay --trace TRACE", "one_layer", "one layer"),
    ("rtl replay --trace TRACE --piece-tokens 4", "good", "--piece-tokens: has no effect: it is of --pieces"),
    ("rtl replay --trace TRACE --pieces p --waves w.vcd", "good", "--waves: of a replay in pieces none are written"),
    ("rtl replay --trace TRACE --pieces p --tokens 1000", "good", "choose 1 to"),
    ("rtl replay --unit table-engine --trace TRACE --pieces p", "good", "--pieces: has no effect"),
    ("rtl replay --trace TRACE --tokens 1000", "good", "choose 1 to"),
    ("rtl replay --trace TRACE", "one_sequence", "no test sequences"),
    ("rtl replay --trace TRACE --set candidate=3", "good", "candidates"),
    ("rtl replay --trace TRACE --experts-max 64", "good", "--experts-max: has no effect"),
    ("rtl replay --trace TRACE --mode off --set candidates=3", "good", "--set: has no effect"),
    ("rtl replay --trace TRACE --mode tables --predictor none", "good", "--predictor: has no effect"),
    ("rtl replay --trace TRACE --mode lerned", "good", "--mode lerned: give off, tables, learned"),
    ("rtl replay --trace TRACE --mode learned", "good", "--predictor"),
    ("rtl replay --trace TRACE --predictor none", "good", "none: cannot read"),
    ("rtl compare-system --trace TRACE", "unknown", "not in the catalogue"),
    ("rtl compare-system --trace TRACE", "one_layer", "one layer"),
    ("rtl compare-system --trace TRACE", "one_sequence", "no test sequences"),
    ("rtl compare-system --trace TRACE --next-use none", "good", "none: cannot read"),
    ("rtl compare-system --trace TRACE", "good", "choose 1 to"),
    ("rtl generate --out FILE", "good", "cannot write"),
    ("rtl generate --out FOLDER/v --unit pim-unit --lanes 64", "good", "--lanes: has no effect"),
    ("rtl generate --out FOLDER/v --unit pim-unit --layers-max 4", "good", "--layers-max: has no effect"),
    ("rtl generate --out FOLDER/v --unit table-engine --no-nets", "good", "--no-nets: has no effect"),
    ("rtl generate --out FOLDER/v --no-nets --lanes 64", "good", "--lanes: has no effect"),
    ("rtl generate --out FOLDER/v --unit engin", "good", "nearest known name"),
    ("rtl generate --out FOLDER/v --layers-max 1", "good", "--layers-max 1: give 2 or more"),
    ("rtl blocks --figure FOLDER/f.gif", "good", "end the name"),
    ("rtl timeline --trace TRACE --predictor none --figure FOLDER/f.gif", "good", "end the name"),
    ("rtl timeline --trace TRACE --predictor none --figure FOLDER/f.svg", "one_sequence", "no test sequences"),
    ("rtl timeline --trace TRACE --predictor none --figure FOLDER/f.svg", "good", "none: cannot read"),
    ("rtl energy --trace TRACE --liberty none.lib --mode lerned", "good", "--mode lerned"),
    ("rtl energy --trace TRACE --liberty none.lib", "good", "no predictor is given"),
    ("rtl energy --trace TRACE --liberty none.lib --predictor none", "good", "none: cannot read"),
    ("rtl energy --trace TRACE --liberty none.lib --mode off", "good", "none.lib: cannot read the cell library"),
    ("rtl energy --trace TRACE --liberty none.lib --mode off --next-use none", "good", "are of mode learned"),
    ("rtl energy --trace TRACE --liberty none.lib --mode off", "wide", "give a smaller model's trace"),
    ("rtl energy --trace TRACE --liberty none.lib --mode off", "one_sequence", "no test sequences"),
    ("rtl synthesise --unit pim-blok", "good", "pim-block"),
    ("rtl prove pim-row", "good", "pim-rows"),
    ("pim check --layer 8", "good", "0 to 7"),
    ("pim expert-stream --model gpt-oss-21b", "good", "gpt-oss-20b"),
    ("pim stream --device HBM5", "good", "nearest known is"),
    ("pim stream --device HBM3 --pattern sideways", "good", "--pattern"),
    ("pim stream --device HBM3 --bytes 0", "good", "0 bytes; give 1 to"),
    ("pim stream --device none.toml", "good", "none.toml: cannot read"),
    ("reference check --trace TRACE", "empty_layer", "no recorded token"),
    ("reference measure --out FOLDER", "good", "is a folder"),
    ("reference measure --out OUT --device cud", "good", "cpu or cuda"),
    ("reference compare --record FOLDER/none.json --trace TRACE", "good", "none.json: cannot read"),
    ("reference pack --trace TRACE --out FILE", "good", "is there and is no package"),
    ("reference pack --trace TRACE --out FILE/p", "good", "cannot write"),
    ("reference pack --trace TRACE --out OUT", "one_sequence", "no test sequences"),
    ("reference pack --trace TRACE --out OUT --predictor none.safetensors", "good", "none.safetensors"),
    ("reference pack --trace TRACE --out OUT", "loads", "expert loads"),
    ("reference perplexity --format fp8", "good", "--format"),
    ("reference perplexity --tokens 0", "good", "--tokens 0: give 1 or more"),
    ("reference perplexity --checkpoint FOLDER", "good", "no such file"),
    ("predictor train --trace TRACE --out OUT", "good", "no token identity"),
    ("predictor train --trace TRACE --out OUT --config no-identity", "one_layer", "one layer"),
    ("predictor train --trace TRACE --out OUT --config no-identity", "one_sequence", "at least 2"),
    ("predictor train --trace TRACE --out OUT --config no-identity", "all_chosen", "nothing to predict"),
    ("predictor train --trace TRACE --out FOLDER", "good", "is a folder"),
    ("predictor train-next-use --trace TRACE --out FOLDER/x.safetensors", "one_sequence", "at least 2"),
    ("predictor train-next-use --trace TRACE --out FILE/x.safetensors", "good", "cannot write"),
    ("predictor evaluate --trace TRACE --predictor st-moe", "one_layer", "lookahead"),
    ("predictor evaluate --trace TRACE --predictor st-moe", "one_sequence", "is empty"),
    ("predictor evaluate --trace TRACE --predictor st-moe --issue 33", "good", "33"),
    ("predictor evaluate --trace TRACE --compare --predictor st-moe --predictor none.safetensors", "good", "no such"),
    ("predictor evaluate --trace TRACE --compare --predictor learned", "good", "predictor train"),
    ("predictor evaluate --trace TRACE --compare --issue 33", "good", "33"),
    ("predictor evaluate --trace TRACE --compare --figure FILE/x.svg", "good", "cannot write"),
    ("predictor evaluate --trace TRACE --compare --figure x.gif", "good", ".svg"),
    ("predictor calibration --trace TRACE --predictor none.safetensors", "good", "none.safetensors"),
    ("predictor predictions --trace TRACE --predictor st-moe --out OUT", "one_layer", "one layer"),
    ("predictor predictions --trace TRACE --predictor st-moe --out FILE/x.npz", "good", "cannot write"),
    ("predictor export none.safetensors --out FOLDER", "good", "is a folder"),
    ("predictor sweep --trace TRACE --grid sizes --out FOLDER/s", "one_sequence", "is empty"),
    ("predictor sweep --trace TRACE --grid sizes --out FOLDER/s", "good", "no token identity"),
    ("predictor sweep --trace TRACE --grid sizes --out FILE", "good", "cannot write"),
    ("cache simulate --trace TRACE --capacity 8 --policy lru --policy lro", "good", "choose lru"),
    ("cache simulate --trace TRACE --capacity-mib 100", "unknown", "not in the catalogue"),
    ("cache compare --trace TRACE --figure FOLDER/x.txt", "good", ".svg"),
    ("cache compare --trace TRACE --next-use none.safetensors", "good", "none.safetensors"),
    ("cache compare --trace TRACE", "one_sequence", "sequence"),
    ("trace stats TRACE --figure FILE/x.svg", "good", "cannot write"),
    ("trace batch --trace TRACE --batch 0 --out OUT", "good", "--batch 0: give 1 or more"),
    ("trace batch --trace TRACE --batch 2 --out FOLDER", "good", "is a folder"),
    ("trace synthesise --from TRACE --out FOLDER", "good", "is a folder"),
    ("trace synthesise --from TRACE --out OUT --like gpt-oss-21b", "good", "gpt-oss-20b"),
    ("trace export TRACE --format npz --out FOLDER/x.csv", "good", "ends in .npz"),
    ("trace export TRACE --format npz --out FILE/x.npz", "good", "cannot write"),
    ("study --trace TRACE --out FILE", "good", "cannot write"),
    *((f"{command} --trace TRACE", "loads", "expert loads") for command in (
        "system simulate", "system compare", "rtl replay", "rtl compare-system", "reference check", "cache compare",
        "cache simulate --capacity 4", "predictor evaluate --predictor st-moe", "study --out OUT",
        "predictor train --out OUT", "predictor sweep --grid sizes --out FOLDER/s",
        "rtl timeline --predictor none --figure FOLDER/f.svg",
    )),
]  # fmt: skip


def make(folder: Path) -> dict[str, Path]:
    """The traces, by what is odd about them."""

    def trace(
        name: str, *, sequences: int = 6, layers: int = 3, experts: int = 32, top_k: int = 4, prompt: int = 4,
        model: str = "gpt-oss-20b", missing: Any = None,
    ) -> Path:  # fmt: skip
        keys = np.random.default_rng(0).random((sequences * 12, layers, experts))
        ids = keys.argsort(axis=-1)[..., :top_k]
        if missing is not None:
            ids[missing] = 255
        path = folder / f"{name}.safetensors"
        trace_of(
            ids, experts=experts, lengths=[12] * sequences, prompt=prompt, model=model, ranked=False
        ).save(path)  # fmt: skip
        return path

    loads = folder / "loads.safetensors"
    metadata = LoadMetadata(model="x", experts=8, layer_map=(0,), source="a test", licence="MIT")
    ExpertLoad(counts=np.ones((1, 1, 8)), metadata=metadata).save(loads)
    return {
        "good": trace("good"),
        "one_layer": trace("one_layer", layers=1),
        "one_sequence": trace("one_sequence", sequences=1),
        "prefill": trace("prefill", prompt=99),
        "unknown": trace("unknown", model="acme/unknown", experts=8, top_k=2),
        "wide": trace("wide", experts=128),
        "gaps": trace("gaps", missing=(slice(5, None, 6), 1)),
        "empty_layer": trace("empty_layer", missing=(slice(None), 1)),
        "many_chosen": trace("many_chosen", top_k=9),
        "all_chosen": trace("all_chosen", experts=4, top_k=4),
        "loads": loads,
    }


@pytest.fixture
def no_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever does the work of a command fails the test."""

    def never(*arguments: object, **options: object) -> None:
        raise AssertionError("work was begun before the refusal")

    for worker in WORKERS:
        place, name = worker.rsplit(".", 1)
        try:
            owner: Any = import_module(place)
        except ModuleNotFoundError:
            holder, kind = place.rsplit(".", 1)
            owner = getattr(import_module(holder), kind)
        original = getattr(owner, name)
        monkeypatch.setattr(owner, name, never)
        for module in [module for known, module in sys.modules.items() if known.split(".")[0] in PACKAGES]:
            if vars(module).get(name) is original and module is not owner:
                monkeypatch.setattr(module, name, never)


@pytest.mark.usefixtures("no_work")
@pytest.mark.parametrize(("command", "trace", "says"), CASES)
def test_a_refusal_comes_before_the_work(
    forestage: Forestage, tmp_path: Path, command: str, trace: str, says: str
) -> None:
    paths = make(tmp_path)
    (tmp_path / "file").write_text("")
    put_in = {"TRACE": paths[trace], "OUT": tmp_path / "out.safetensors", "FOLDER": tmp_path, "FILE": tmp_path / "file"}
    arguments = []
    for word in command.split():
        head, _, tail = word.partition("/")
        arguments.append(str(put_in[head]) + (f"/{tail}" if tail else "") if head in put_in else word)
    before = sorted(tmp_path.rglob("*"))
    line = refused(forestage(*arguments))
    assert says in line
    assert sorted(tmp_path.rglob("*")) == before


def test_every_command_that_works_on_a_recording_is_in_the_list() -> None:
    """So that a new command is asked for its refusals."""
    named = {" ".join(command.split()[: 1 if command.startswith("study") else 2]) for command, _, _ in CASES}
    groups = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    every = {f"{name} {command}" for name, group in groups.items() for command in getattr(group, "commands", ())}
    every |= {name for name, group in groups.items() if not hasattr(group, "commands")}
    # Tested in files of their own.
    quick = {"predictor list", "trace import", "trace info", "trace capture", "system expert"}
    quick |= {f"pim {name}" for name in ("expert", "gemv", "roofline", "shapes", "timeline")}
    quick |= {f"reference {name}" for name in ("compare", "decode", "pack")}
    quick |= {f"catalog {name}" for name in ("add", "fields", "list", "show")}
    assert every - named - quick == set()
