"""Where the rows of a vLLM choice belong, and what is told of them: each condition decides one of these cases alone."""

from dataclasses import asdict
from typing import Any

import numpy as np
import pytest

from catalog.errors import ForestageError
from tests.traces.recorded_ids import random_ids
from traces.importers.assembly.routed_ids import RoutedIds
from traces.importers.formats.vllm_response import Choice, Told, placed


def rows(count: int | None, start: int | None = None) -> RoutedIds | None:
    """``count`` rows of two layers, top-2; ``None`` for none."""
    return None if count is None else RoutedIds(random_ids(count, 2, 2, 8), start)


def choice(*, before: int | None = None, count: int | None = None, start: int | None = None, **facts: Any) -> Choice:
    """A choice of a prompt of 4 tokens with 3 generated, of which the last was not processed."""
    given = {"has_prompt": before is not None, "padded": False, "prompt": 4, "generated": 3, **facts}
    none = {"prompt_ids": None, "token_ids": None, "place": "here"}
    return Choice(before=rows(before), rows=rows(count, start), **none | given)


LAST = {"last_missing": 1}
UNSEEN = {"unseen": 1, "unseen_tokens": 1}


@pytest.mark.parametrize(
    ("facts", "in_cache", "shared", "places", "told"),
    [
        # Rows of the prompt apart.
        ({"before": 4, "count": 2}, None, False, (0, 0, 0), LAST),
        ({"before": 4, "count": 3}, None, False, (0, 0, 0), {}),
        ({"before": 4, "count": 2, "padded": True}, None, False, (0, 0, 0), LAST),
        ({"before": 4, "count": 2, "generated": None, "padded": True}, None, False, (0, 0, 0), LAST),
        ({"before": 4, "count": 2, "generated": None}, None, False, (0, 0, 0), {}),
        ({"before": 4, "generated": 0}, None, False, (0, 0, 0), {}),
        ({"before": 4, "generated": 1}, None, False, (0, 0, 0), LAST),
        ({"before": 4}, None, False, (0, 0, 0), {}),  # what it generated is left out, and told elsewhere
        ({"before": 3, "count": 2}, None, False, (1, 0, 0), LAST | UNSEEN),
        ({"before": 3, "count": 2}, 1, False, (1, 0, 0), LAST | UNSEEN),
        ({"before": 4, "count": 2}, 3, False, (0, 3, 3), LAST),
        ({"before": 4, "count": 2}, 9, False, (0, 4, 4), LAST),
        ({"before": 4, "count": 2}, 3, True, (0, 4, 3), LAST),
        # The first choice's prompt has rows, the second's is the same.
        ({"count": 2, "has_prompt": True}, None, True, (4, 0, 0), LAST),
        ({"count": 2, "has_prompt": True}, None, False, (4, 0, 0), LAST | {"alone": 1}),
        ({"count": 2}, None, True, (4, 0, 0), LAST | {"alone": 1}),
        ({"count": 2}, None, False, (4, 0, 0), LAST | {"alone": 1}),
        # Rows that begin within the prompt.
        ({"count": 6}, None, False, (0, 0, 0), LAST),
        ({"count": 7}, None, False, (0, 0, 0), {}),
        ({"count": 6}, None, True, (0, 4, 0), LAST),
        ({"count": 5}, None, False, (1, 0, 0), LAST | UNSEEN | {"inferred": 1}),
        ({"count": 5}, 1, False, (1, 0, 0), LAST | UNSEEN),
        ({"count": 5, "start": 1}, None, False, (1, 0, 0), LAST | UNSEEN),
        ({"count": 6, "start": 1}, None, False, (1, 0, 0), UNSEEN),
        ({"count": 4, "generated": 0}, None, False, (0, 0, 0), {}),
        ({"count": 3, "generated": 0, "start": 0}, None, False, (0, 0, 0), {"prompt_short": 1}),
        ({"count": 2, "generated": 0, "start": 1}, None, False, (1, 0, 0), UNSEEN | {"prompt_short": 1}),
        # Prompts of no stated length.
        ({"count": 6, "prompt": None}, None, False, (0, 0, 0), LAST),
        ({"count": 5, "prompt": None, "start": 1}, None, False, (1, 0, 0), LAST | UNSEEN),
    ],
)
def test_rows_are_placed_and_what_lacks_is_told(
    facts: dict[str, Any], in_cache: int | None, shared: bool, places: tuple[int, int, int], told: dict[str, int]
) -> None:
    counted = Told()
    answer = placed(choice(**facts), in_cache, counted, shared=shared)
    assert answer is not None
    assert (answer.first, answer.repeated, answer.cached) == places
    assert (answer.prompt, answer.counted) == (4, in_cache is not None)
    assert {name: number for name, number in asdict(counted).items() if number} == told


@pytest.mark.parametrize("facts", [{}, {"before": 0, "count": 0, "generated": 0}, {"count": 0, "has_prompt": True}])
def test_a_choice_without_rows_is_no_sequence_and_nothing_is_told(facts: dict[str, Any]) -> None:
    counted = Told()
    assert placed(choice(**facts), None, counted, shared=False) is None
    assert counted == Told()


@pytest.mark.parametrize(
    ("facts", "tokens"),
    [
        ({"count": 5, "start": 1}, [11, 12, 13, 20, 21]),
        ({"count": 5, "start": 1, "token_ids": None}, None),
        ({"count": 5, "start": 1, "prompt_ids": None}, None),
    ],
)
def test_rows_have_the_identities_of_their_tokens(facts: dict[str, Any], tokens: list[int] | None) -> None:
    ids = {"prompt_ids": np.array([10, 11, 12, 13]), "token_ids": np.array([20, 21, 22])}
    answer = placed(choice(**ids | facts), None, Told(), shared=False)
    assert answer is not None
    assert (None if answer.tokens is None else answer.tokens.tolist()) == tokens


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        ({"count": 2, "has_prompt": True, "start": 3}, "start: 3; the prompt has 4 tokens"),
        ({"before": 4, "count": 1}, "1 rows for 3 generated tokens"),
        ({"before": 4, "count": 4}, "4 rows for 3 generated tokens"),
        ({"before": 4, "count": 3, "padded": True}, "3 rows for 3 generated tokens"),
        ({"count": 6, "generated": None}, "no completion_tokens, and no token_ids"),
        ({"count": 6, "generated": None, "prompt": None}, "nothing tells where the prompt ends"),
        ({"count": 6, "generated": 0, "prompt": None}, "nothing tells where the prompt ends"),
        ({"count": 2, "prompt": None}, "2 rows for 3 generated tokens, and no usage"),
        ({"count": 2, "prompt": None, "start": 0}, "2 rows for 3 generated tokens, and no usage"),
        ({"count": 8}, "8 rows for 3 generated tokens after a prompt of 4; expected 2 to 7"),
        ({"count": 1}, "1 rows for 3 generated tokens after a prompt of 4; expected 2 to 7"),
        ({"count": 7, "start": 1}, "7 rows from 1 on for 3 generated tokens after a prompt of 4; expected 5 or 6"),
        ({"count": 3}, "3 rows may be of the positions from 3 on or the positions from 4 on, the last generated"),
    ],
)
def test_rows_that_fit_nowhere_or_twice_are_refused(facts: dict[str, Any], message: str) -> None:
    with pytest.raises(ForestageError, match=message):
        placed(choice(**facts), None, Told(), shared=False)
