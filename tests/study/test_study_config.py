"""The study's settings: refused where wrong, documented one by one."""

import inspect
import re
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from catalog.errors import ForestageError
from study.commands.rtl.replaying import TABLE_TOKENS, replay_command
from study.commands.system.simulating import simulate_command
from study.config import StudyConfig, load_study_config

DOCS = Path(__file__).resolve().parents[2] / "docs" / "study.md"


def keys(model: type[BaseModel], prefix: str = "") -> list[str]:
    """Names of all settings, nested ones dotted."""
    names = []
    for name, field in model.model_fields.items():
        nested = field.annotation
        if isinstance(nested, type) and issubclass(nested, BaseModel):
            names += keys(nested, f"{prefix}{name}.")
        else:
            names.append(prefix + name)
    return names


def test_every_setting_is_documented() -> None:
    text = DOCS.read_text(encoding="utf-8")
    assert [key for key in keys(StudyConfig) if f"| `{key}` |" not in text] == []


def test_defaults_are_as_documented() -> None:
    rows = dict(re.findall(r"^\| `([\w.]+)` \| (.*?) \|", DOCS.read_text(encoding="utf-8"), re.MULTILINE))
    defaults = StudyConfig()
    documented = 0
    for key in keys(StudyConfig):
        value: Any = defaults
        for name in key.split("."):
            value = getattr(value, name)
        if isinstance(value, bool):
            assert rows[key] == str(value).lower(), key
            documented += 1
        elif isinstance(value, float | int):
            assert float(rows[key].split(",")[0]) == value, key
            documented += 1
        elif isinstance(value, tuple) and rows[key].startswith("["):  # each value, or the first and the last
            numbers = [float(number) for number in re.findall(r"[\d.]+", rows[key].replace("…", ","))]
            assert numbers == [value[0], value[-1]] if "…" in rows[key] else numbers == list(value), key
            documented += 1
    assert documented == 17


def test_a_command_on_its_own_does_what_the_study_does() -> None:
    study = StudyConfig()
    simulate = inspect.signature(simulate_command).parameters
    assert (simulate["machine"].default, simulate["capacity_fraction"].default, simulate["tokens"].default) == (
        study.system.machine, study.system.capacity_fraction, study.system.tokens,
    )  # fmt: skip
    replay = inspect.signature(replay_command).parameters
    assert (TABLE_TOKENS, replay["lookahead"].default, replay["seed"].default) == (
        study.replay_tokens, study.lookahead, study.seed,
    )  # fmt: skip


def test_a_file_sets_what_it_names(tmp_path: Path) -> None:
    path = tmp_path / "study.toml"
    path.write_text("replay_tokens = 40\n[system]\nmachine = 'H100-80GB'\n")
    config = load_study_config(path)
    assert (config.replay_tokens, config.system.machine, config.seed) == (40, "H100-80GB", 0)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("replay_token = 40", r"study.toml: unknown key 'replay_token'; the nearest known key is 'replay_tokens'"),
        ("[system]\ncapacity = 0.5", r"unknown key 'system.capacity'; the nearest known key is 'capacity_fraction'"),
        ("[system]\ncapacity_fraction = 1.5", r"system.capacity_fraction: .*less than or equal to 1"),
        ("replay_tokens = [", r"study.toml: not valid TOML"),
    ],
)
def test_a_fault_is_one_line(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "study.toml"
    path.write_text(text)
    with pytest.raises(ForestageError, match=message):
        load_study_config(path)
