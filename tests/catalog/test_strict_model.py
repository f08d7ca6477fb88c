"""What a setting's error carries: the setting, the value at fault in a list, and what to give instead."""

from typing import Annotated, Any, Literal

import pytest
from pydantic import Field, field_validator

from catalog.config import StrictModel
from catalog.errors import ForestageError, SettingError


class Inner(StrictModel):
    share: float = Field(default=0.5, gt=0, lt=1.5, allow_inf_nan=False)


class Settings(StrictModel):
    count: int = Field(default=3, ge=2, le=9)
    kind: Literal["a", "b"] = "a"
    name: str = Field(default="x", min_length=1)
    sizes: tuple[Annotated[int, Field(ge=1)], ...] = (1,)
    even: int = 2
    inner: Inner = Inner()

    @field_validator("even")
    @classmethod
    def _even(cls, value: int) -> int:
        if value % 2:
            raise ValueError("give an even number")
        return value


@pytest.mark.parametrize(
    ("values", "settings", "remedy", "value"),
    [
        ({"count": 1}, ("count",), "give 2 or more", None),
        ({"count": 10}, ("count",), "give 9 or less", None),
        ({"kind": "c"}, ("kind",), "choose 'a' or 'b'", None),
        ({"name": ""}, ("name",), "is empty; give a text", None),
        ({"sizes": (4, 0)}, ("sizes",), "give 1 or more", 0),
        ({"inner": {"share": 0}}, ("inner", "share"), "give a number above 0", None),
        ({"inner": {"share": 1.5}}, ("inner", "share"), "give a number below 1.5", None),
        ({"inner": {"share": float("nan")}}, ("inner", "share"), "give a finite number", None),
        ({"even": 3}, ("even",), "give an even number", None),
    ],
)
def test_a_setting_is_refused_with_its_remedy(
    values: dict[str, Any], settings: tuple[str, ...], remedy: str, value: object
) -> None:
    with pytest.raises(SettingError) as caught:
        Settings.parse_settings(values, origin="here")
    assert (caught.value.settings, caught.value.remedy, caught.value.value) == (settings, remedy, value)
    assert str(caught.value).startswith(f"here: {'.'.join(settings)}")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"cuont": 1}, "here: unknown key 'cuont'; the nearest known key is 'count'"),
        ({"inner": {"shar": 1}}, "here: unknown key 'inner.shar'; the nearest known key is 'share'"),
        ({"count": 1, "knd": "a"}, "here: unknown key 'knd'; the nearest known key is 'kind'"),
    ],
)
def test_an_unknown_key_names_the_nearest(values: dict[str, Any], message: str) -> None:
    for parse in (Settings.parse, Settings.parse_settings):
        with pytest.raises(ForestageError) as caught:
            parse(values, origin="here")
        assert str(caught.value) == message


def test_a_setting_is_said_once() -> None:
    assert str(SettingError("count", "give 2 or more")) == "count: give 2 or more"
    assert str(SettingError(("inner", "share"), "give less", value=7)) == "inner.share: 7: give less"
    assert str(SettingError("count", "give 2 or more", message="as it is")) == "as it is"


def test_settings_do_not_change() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Settings().count = 4
