"""Host memory is checked before it is taken, and the line says what would fit."""

import pytest

from catalog import ForestageError
from gpu_reference.measuring.room import Needed, check_room

GB = 10**9
NEEDED = Needed(model="a model", expert_bytes=GB, experts=8, places=4, beside=2, decoder_bytes=2 * GB)


def test_what_fits_is_let_through() -> None:
    assert NEEDED.nbytes == 16 * GB
    check_room(NEEDED, 20 * GB)
    check_room(NEEDED, None)  # where the system does not say


def test_fewer_places_are_named_where_they_would_fit() -> None:
    with pytest.raises(ForestageError) as caught:
        check_room(NEEDED, 19 * GB)
    assert str(caught.value) == (
        "host memory: a model: 8 experts 8.0 GB, 6 places for experts 6.0 GB, the decoder 2.0 GB; 15.2 GB may be taken "
        "of 19.0 GB that are free; 3 experts held would fit; leave this section out (--without)"
    )


def test_a_smaller_model_is_asked_for_where_its_experts_do_not_fit() -> None:
    with pytest.raises(ForestageError, match=r"6\.0 GB of experts would fit, those held included; measure a smaller"):
        check_room(NEEDED, 10 * GB)
    with pytest.raises(ForestageError, match=r"0\.0 GB of experts would fit"):
        check_room(NEEDED, GB)
