"""The study's settings: refused where wrong, documented one by one."""

from pathlib import Path

import pytest
from pydantic import BaseModel

from catalog.errors import ForestageError
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
