"""Find the columns of a table for each role."""

import difflib
import re
from collections.abc import Mapping, Sequence
from itertools import pairwise

from catalog.errors import ForestageError

ROLES: dict[str, str] = {
    "layer": "the layer of the row",
    "token": "a number of the token; positions count from the first of its sequence",
    "position": "the token's position in its context, in place of token",
    "ids": "the experts chosen, best first: a list in one column, or several columns",
    "weights": "their gate weights, likewise",
    "expert": "one expert, where a row is one expert of a token's choice, or one load",
    "sequence": "what tells sequences (requests) apart",
    "phase": "prefill or decode",
    "token_id": "the token's index in the vocabulary",
    "domain": "label of the sequence",
    "dataset": "what the sequence is stratified by",
    "count": "of a table of loads: tokens that chose the expert; a list, or several columns, of all experts",
    "step": "of a table of loads: a number of the step",
}
"""Role of a column → its meaning."""

WIDE = frozenset({"ids", "weights", "count"})
"""Roles that several columns may play together."""

SYNONYMS = {
    "load": "count",
    "tokens": "count",
    "experts": "ids",
    "expert_ids": "ids",
    "topk_ids": "ids",
    "weight": "weights",
    "gate_weights": "weights",
    "layer_id": "layer",
    "request": "sequence",
    "token_idx": "token",
    "iteration": "step",
}
"""Words whose spelling is near to no role → the role meant."""

PLACE = "#[1-9][0-9]{0,5}"
NUMBERED = re.compile(r"(.*?)([0-9]{1,6})")
SHOWN_COLUMNS = 24


def check_roles(columns: Mapping[str, str], origin: str) -> None:
    """Refuse unknown roles.

    Raises:
        ForestageError: naming the nearest role.
    """
    for role in columns:
        if role not in ROLES:
            nearest = SYNONYMS.get(role.lower()) or difflib.get_close_matches(role, list(ROLES), n=1, cutoff=0.0)[0]
            raise ForestageError(
                f"{origin}: --column {role}={columns[role]}: unknown role '{role}'; the nearest is '{nearest}' (known: "
                f"{', '.join(ROLES)})"
            )


def by_number(columns: Mapping[str, str]) -> bool:
    """Whether every column is named by its number (``#1``), so that a table needs no heading."""
    return all(numbered(name) is not None for name in columns.values())


def numbered(name: str) -> tuple[int, ...] | None:
    """The indices, from 0 on, that ``#3``, ``#3,#5`` or ``#3..#5`` names; ``None`` if it is none of these."""
    if re.fullmatch(rf"{PLACE}(?:\s*,\s*{PLACE})*", name):
        return tuple(int(part) - 1 for part in re.findall(r"[0-9]+", name))
    match = re.fullmatch(rf"#({PLACE[1:]})\.\.#({PLACE[1:]})", name)
    return None if match is None else tuple(range(int(match[1]) - 1, int(match[2])))


def resolve(columns: Mapping[str, str], heading: Sequence[str], place: str) -> dict[str, tuple[int, ...]]:
    """Role → indices in ``heading`` of its columns.

    A column is given by its name or by its number from 1 on (``#3``). Several columns that make a list are given by a
    pattern (``expert_*``), the first and the last (``expert_0..expert_7``, ``#3..#10``), or all of them (``a,b,c``).

    Args:
        columns: role → the user's text.
        heading: the table's columns.
        place: the file (and line), for errors.

    Raises:
        ForestageError: naming a column that is missing or occurs twice, or a pattern that leaves one out.
    """
    return {role: _places(role, name, heading, f"{place}: --column {role}={name}") for role, name in columns.items()}


def _places(role: str, name: str, heading: Sequence[str], place: str) -> tuple[int, ...]:
    """The indices of one role's columns."""
    if name in heading:
        return (_only(name, heading, place),)
    places = numbered(name)
    if places is not None and (not places or max(places) >= len(heading)):
        raise ForestageError(f"{place}: the table has {len(heading)} columns")
    names = _several(name, heading, place) if places is None else None
    if places is None and names is None:
        raise ForestageError(f"{place}: no such column; {_known(name, heading)}")
    if role not in WIDE and len(places or names or ()) > 1:
        raise ForestageError(f"{place}: several columns; only {', '.join(sorted(WIDE))} may have more than one")
    return tuple(_only(part, heading, place) for part in names or ()) if places is None else places


def _several(name: str, heading: Sequence[str], place: str) -> list[str] | None:
    """The columns that a pattern, a range or a list names; ``None`` if it is none of these."""
    if name.count("*") == 1:
        before, after = name.split("*")
        found: dict[int, str] = {}
        for column in heading:
            number = column[len(before) : len(column) - len(after)]
            if column.startswith(before) and column.endswith(after) and re.fullmatch(r"[0-9]{1,6}", number):
                if int(number) in found and found[int(number)] != column:
                    raise ForestageError(
                        f"{place}: both {found[int(number)]} and {column} have the number {int(number)}"
                    )
                found[int(number)] = column
        if not found:
            raise ForestageError(f"{place}: no column is numbered so; {_known(name, heading)}")
        for lower, higher in pairwise(sorted(found)):
            if higher != lower + 1:
                raise ForestageError(f"{place}: has {found[lower]} and {found[higher]}, but none between")
        return [found[number] for number in sorted(found)]
    first, dots, last = name.partition("..")
    if dots:
        ends = NUMBERED.fullmatch(first), NUMBERED.fullmatch(last)
        if ends[0] is None or ends[1] is None or ends[0][1] != ends[1][1] or int(ends[0][2]) > int(ends[1][2]):
            raise ForestageError(f"{place}: name the first and the last of numbered columns, as expert_0..expert_7")
        wanted = range(int(ends[0][2]), int(ends[1][2]) + 1)
        width = len(ends[0][2]) if ends[0][2].startswith("0") and len(ends[0][2]) > 1 else 0
        return [f"{ends[0][1]}{number:0{width}d}" for number in wanted]
    return [part.strip() for part in name.split(",")] if "," in name else None


def _only(name: str, heading: Sequence[str], place: str) -> int:
    """The index of a column that must occur exactly once."""
    if heading.count(name) != 1:
        state = f"{heading.count(name)} columns are called '{name}'; give its place (#1 is the first)"
        raise ForestageError(f"{place}: {state if name in heading else f'no column {name}; {_known(name, heading)}'}")
    return heading.index(name)


def _known(name: str, heading: Sequence[str]) -> str:
    """The table's columns, and the one nearest to ``name``, for an error."""
    nearest = difflib.get_close_matches(name, list(heading), n=1, cutoff=0.6)
    hint = f"the nearest is '{nearest[0]}'; " if nearest else ""
    return f"{hint}there are {shown(heading)}"


def shown(heading: Sequence[str]) -> str:
    """Names of columns; of many, only the first."""
    listed = ", ".join(column[:40] for column in heading[:SHOWN_COLUMNS])
    more = f" and {len(heading) - SHOWN_COLUMNS} more" if len(heading) > SHOWN_COLUMNS else ""
    return " ".join(f"{listed}{more}".split()) or "none"
