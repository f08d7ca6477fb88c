"""What holds for the options of every command: a single value is given once, and errors name what was typed."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer

from catalog.errors import ForestageError
from study.cli import app
from tests.routing import trace_of
from tests.study.conftest import Outcome, refused
from traces.expert_load import ExpertLoad, LoadMetadata

Forestage = Callable[..., Outcome]


def commands() -> Iterator[tuple[str, Any]]:
    """Every command of the command line, and its name."""
    stack: list[tuple[str, Any]] = [("forestage", typer.main.get_command(app))]
    while stack:
        name, command = stack.pop()
        if hasattr(command, "commands"):
            stack += [(f"{name} {child}", found) for child, found in command.commands.items()]
        else:
            yield name, command


SINGLE = [
    (name, command, option)
    for name, command in commands()
    for option in command.params
    if option.param_type_name == "option" and not option.multiple and not option.is_flag
]


def test_nothing_is_switched_on_unasked_and_every_command_can_answer_in_json() -> None:
    for name, command in commands():
        flags = {option.opts[0]: option.default for option in command.params if getattr(option, "is_flag", False)}
        assert "--json" in flags, name
        assert not any(flags.values()), f"{name}: {flags}"


@pytest.mark.parametrize(("command", "option"), [pytest.param(c, o, id=f"{name} {o.opts[0]}") for name, c, o in SINGLE])
def test_an_option_of_one_value_is_given_once(command: Any, option: Any) -> None:
    for spelling in option.opts:
        context = command.make_context("x", [], resilient_parsing=True)
        with pytest.raises(ForestageError, match=r"given 2 times, but it takes one value"):
            command.parse_args(context, [spelling, "1", f"{spelling}=2"])


def test_a_repeat_is_one_line(forestage: Forestage, small_trace: Path) -> None:
    line = refused(forestage("cache", "simulate", "--trace", small_trace, "--capacity", 4, "--capacity", 8))
    assert "--capacity: given 2 times" in line


def test_a_list_and_a_switch_may_be_given_again(forestage: Forestage, small_trace: Path) -> None:
    asked = ("predictor", "evaluate", "--trace", small_trace, "--predictor", "popularity", "--resamples", 0)
    assert forestage(*asked, "--issue", 2, "--issue", 4, "--json", "--json").status == 0


def test_a_setting_is_given_once(forestage: Forestage, small_trace: Path) -> None:
    asked = ("predictor", "evaluate", "--trace", small_trace, "--predictor", "st-moe", "--issue", 2)
    line = refused(forestage(*asked, "--set", "candidates=8", "--set", "candidates=16"))
    assert "--set candidates: given twice" in line


ONE_FOLD = {
    "batch": (("trace", "batch", "--trace", "TRACE", "--batch", 0, "--out", "OUT"), "--batch 0: give 1 or more"),
    "top-k": (("trace", "import", "TRACE", "--top-k", 0, "--out", "OUT"), "--top-k 0: give 1 or more"),
    "top-k of experts": (
        ("trace", "import", "TRACE", "--top-k", 9, "--experts", 4, "--out", "OUT"),
        "--top-k 9: more than the 4 of --experts; correct one of them",
    ),
    "layers": (("trace", "import", "TRACE", "--layers", "3,2", "--out", "OUT"), "--layers: name each layer once"),
    "issue": (
        ("predictor", "evaluate", "--trace", "TRACE", "--predictor", "st-moe", "--issue", 2, "--issue", 9),
        "--issue 9: choose 1 to 8, the experts of a layer",
    ),
    "eviction": (
        ("system", "simulate", "--trace", "TRACE", "--eviction", "nope"),
        "--eviction nope: choose 'static', 'lru', 'decayed-frequency', 'activation', 'learned', 'oracle', "
        "'oracle-uses' or 'belady'",
    ),
    "missing": (
        ("system", "simulate", "--trace", "TRACE", "--missing", "wait"),
        "--missing wait: choose 'fetch', 'host', 'sooner', 'in-memory', 'sooner-in-memory' or 'fetch-from-memory'",
    ),
    "price": (
        ("system", "simulate", "--trace", "TRACE", "--prefetch", "perfect", "--price", -1),
        "--price -1: give 0 or more",
    ),
    "engine": (
        ("system", "simulate", "--trace", "TRACE", "--engine", "fast"),
        "--engine fast: choose 'compiled' or 'reference'",
    ),
    "domain": (
        ("predictor", "evaluate", "--trace", "TRACE", "--predictor", "st-moe", "--issue", 2, "--domain", "c"),
        "--domain c: unknown name 'c'",
    ),
    "seed": (("trace", "synthesise", "--from", "TRACE", "--out", "OUT", "--seed", -1), "--seed"),
    "phase": (
        ("trace", "import", "TRACE", "--phase", "warm", "--out", "OUT"),
        "--phase warm: choose 'prefill' or 'decode'",
    ),
    "lookahead": (
        ("predictor", "evaluate", "--trace", "TRACE", "--predictor", "st-moe", "--issue", 2, "--lookahead", 9),
        "--lookahead 9: choose one in 1…2: the trace has 3 layers",
    ),
    "split": (
        ("predictor", "predictions", "--trace", "TRACE", "--predictor", "st-moe", "--split", "dev", "--out", "O.npz"),
        "--split dev: choose 'train', 'test' or 'all'",
    ),
    "split of a comparison": (
        ("cache", "compare", "--trace", "TRACE", "--split", "dev"),
        "--split dev: choose 'train', 'test' or 'all'",
    ),
    "devices": (
        ("trace", "export", "TRACE", "--format", "eplb-placement", "--devices", 0, "--out", "OUT"),
        "--devices 0: give 1 or more",
    ),
    "fraction": (
        ("system", "simulate", "--trace", "TRACE", "--capacity-fraction", 1.5),
        "--capacity-fraction 1.5: give 1 or less",
    ),
    "threshold": (("rtl", "generate", "--experts-max", 3, "--out", "OUT"), "--experts-max 3:"),
}


@pytest.mark.parametrize("case", ONE_FOLD)
def test_a_value_that_cannot_be_is_told_by_its_option(
    forestage: Forestage, small_trace: Path, tmp_path: Path, case: str
) -> None:
    arguments, said = ONE_FOLD[case]
    places = {"TRACE": small_trace, "OUT": tmp_path / "out", "O.npz": tmp_path / "o.npz"}
    line = refused(forestage(*(places.get(a, a) for a in arguments)))  # type: ignore[arg-type]
    assert f"error: {said}" in line
    assert "Input should" not in line


CAPACITIES = {
    "more than a layer has": (("--capacity", 9), "--capacity 9: choose 1 to 8, the experts of a layer"),
    "none": (("--capacity", 0), "--capacity"),
    "less than none": (("--capacity", -3), "--capacity"),
    "more than all layers have": (
        ("--scope", "global", "--capacity", 25),
        "--capacity 25: choose 1 to 24, the experts of all 3 layers",
    ),
}


@pytest.mark.parametrize("case", CAPACITIES)
@pytest.mark.parametrize("command", ["simulate", "compare"])
def test_a_cache_holds_some_of_the_experts(forestage: Forestage, small_trace: Path, command: str, case: str) -> None:
    options, said = CAPACITIES[case]
    assert said in refused(forestage("cache", command, "--trace", small_trace, *options))


@pytest.mark.parametrize("command", ["simulate", "compare"])
def test_a_cache_may_hold_everything(forestage: Forestage, small_trace: Path, command: str) -> None:
    assert forestage("cache", command, "--trace", small_trace, "--capacity", 8).status == 0


def test_bytes_hold_an_expert_and_more_than_everything_is_told(forestage: Forestage, good_trace: Path) -> None:
    line = refused(forestage("cache", "simulate", "--trace", good_trace, "--capacity-mib", 0.5))
    assert "--capacity-mib 0.5: holds no expert, which takes" in line
    outcome = forestage("cache", "simulate", "--trace", good_trace, "--capacity-mib", 10**6)
    assert outcome.status == 0
    assert "every expert fits" in outcome.err


@pytest.fixture
def good_trace(tmp_path: Path) -> Path:
    """A trace of a model that the catalogue has."""
    ids = np.random.default_rng(0).random((24, 24, 32)).argsort(axis=-1)[..., :4]
    path = tmp_path / "good.safetensors"
    trace_of(ids, experts=32, lengths=[12, 12], prompt=4, model="gpt-oss-20b", ranked=False).save(path)
    return path


UNUSED = {
    "decay": (("cache", "simulate", "--capacity", 4, "--policy", "lru", "--ema-shift", 3), "--ema-shift"),
    "predictor": (("system", "simulate", "--prefetch", "st-moe", "--predictor", "p.safetensors"), "--predictor"),
    "next use": (("system", "simulate", "--eviction", "belady", "--next-use", "p.safetensors"), "--next-use"),
    "distance": (("system", "simulate", "--distance", 2), "--distance"),
    "chance": (("system", "simulate", "--chance-scale", 2), "--chance-scale"),
    "price without moves": (("system", "simulate", "--price", 5), "--price"),
    "cycles": (("system", "simulate", "--engine-cycles", 5), "--engine-cycles"),
    "host's arithmetic": (("system", "simulate", "--host-tflops", 5), "--host-tflops"),
    "host's latency": (("system", "simulate", "--prefetch", "perfect", "--host-latency-us", 5), "--host-latency-us"),
    "eviction": (("system", "simulate", "--eviction", "belady", "--missing", "host"), "--eviction belady"),
    "seed of a batch": (("trace", "batch", "--batch", 2, "--seed", 5, "--out", "never.safetensors"), "--seed"),
    "seed of intervals": (
        ("predictor", "evaluate", "--predictor", "st-moe", "--issue", 2, "--resamples", 0, "--seed", 4),
        "--seed",
    ),
    "limit": (("system", "simulate", "--prefetch", "perfect", "--issue-limit", 2), "--issue-limit"),
}


def test_what_is_drawn_of_tokens_has_no_use_for_loads(forestage: Forestage, tmp_path: Path) -> None:
    path = tmp_path / "loads.safetensors"
    metadata = LoadMetadata(model="x", experts=8, layer_map=(0,), source="a test", licence="MIT")
    ExpertLoad(counts=np.ones((1, 1, 8)), metadata=metadata).save(path)
    for options in (("--samples", 3), ("--batch", 3), ("--seed", 1), ("--figure", tmp_path / "x.svg")):
        assert f"error: {options[0]}: has no effect" in refused(forestage("trace", "stats", path, *options))


@pytest.mark.parametrize("case", UNUSED)
def test_an_option_without_effect_is_refused(forestage: Forestage, small_trace: Path, case: str) -> None:
    arguments, option = UNUSED[case]
    line = refused(forestage(*arguments, "--trace", small_trace))
    assert f"error: {option}: has no effect" in line


WRITING = {
    "export": ("trace", "export", "TRACE", "--format", "npz", "--out", "NEW/x.npz"),
    "import": ("trace", "import", "TRACE", "--out", "NEW/x.safetensors"),
    "batch": ("trace", "batch", "--trace", "TRACE", "--batch", "2", "--out", "NEW/x.safetensors"),
    "predictions": (
        "predictor", "predictions", "--trace", "TRACE", "--predictor", "popularity", "--out", "NEW/x.npz",
    ),
    "figure": ("cache", "compare", "--trace", "TRACE", "--resamples", "0", "--figure", "NEW/x.svg"),
}  # fmt: skip


@pytest.mark.parametrize("command", WRITING)
def test_a_files_folder_is_made_and_told(forestage: Forestage, small_trace: Path, tmp_path: Path, command: str) -> None:
    places = {"TRACE": str(small_trace)}
    arguments = [places.get(a, a).replace("NEW", str(tmp_path / "a" / "b")) for a in WRITING[command]]
    outcome = forestage(*arguments)
    assert outcome.status == 0, outcome.err
    assert f"note: the folder {tmp_path / 'a' / 'b'} was not there and has been made" in outcome.err
    assert "has been made" not in forestage(*arguments).err


def test_an_output_folder_is_made_without_a_note(
    forestage: Forestage, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def made(out: Path, *_: object) -> dict[str, object]:
        out.mkdir(parents=True)
        return {}

    monkeypatch.setattr("study.run.run_study", made)
    outcome = forestage("study", "--out", tmp_path / "out" / "study", "--json")
    assert (outcome.status, outcome.err) == (0, "")


@pytest.mark.parametrize("command", [name for name in WRITING if name != "figure"])
def test_no_command_writes_over_what_it_reads(forestage: Forestage, tmp_path: Path, command: str) -> None:
    source = tmp_path / "s.npz"
    source.write_bytes(b"kept")
    arguments = [str(source) if a.startswith("NEW") or a == "TRACE" else a for a in WRITING[command]]
    assert "which would be lost" in refused(forestage(*arguments))
    assert source.read_bytes() == b"kept"


def test_a_training_does_not_write_over_its_trace(forestage: Forestage, small_trace: Path) -> None:
    kept = small_trace.read_bytes()
    for command in ("train", "train-next-use"):
        line = refused(forestage("predictor", command, "--trace", small_trace, "--out", small_trace))
        assert "--out" in line
        assert "is the source, which would be lost" in line
    assert small_trace.read_bytes() == kept
