from pathlib import Path

import pytest
import torch

from catalog.errors import ForestageError
from gpu_reference.decoder import memory
from gpu_reference.decoder.shape import DecoderShape
from tests.gpu_reference.decoder.whole_models import TINY, tiny

SHAPE = DecoderShape.of(TINY, TINY.layer_map)
FIXED = SHAPE.fixed_bytes(torch.float32)


def cache(slots: int, max_context: int) -> int:
    return SHAPE.cache_bytes(torch.float32, slots=slots, max_context=max_context)


def test_too_little_memory_names_the_largest_context_and_number_of_slots_that_fit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(memory, "free_bytes", lambda device: FIXED + cache(2, 40))
    with pytest.raises(ForestageError, match=r"gpt-oss-20b: out of memory on cpu.* or 2 slots would fit") as caught:
        tiny(slots=3, max_context=40)
    context = int(str(caught.value).split("max_context ")[1].split()[0])
    assert cache(3, context) <= cache(2, 40) < cache(3, context + 1)
    assert "\n" not in str(caught.value)
    tiny(slots=3, max_context=context)
    tiny(slots=2, max_context=40)


def test_where_even_the_weights_do_not_fit_the_line_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "free_bytes", lambda device: FIXED - 1)
    with pytest.raises(ForestageError, match="the weights alone leave no room for one token"):
        tiny()


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("DefaultCPUAllocator: can't allocate memory")]
)
def test_a_refusal_of_the_device_itself_says_what_would_fit(error: RuntimeError) -> None:
    device = torch.device("cpu")
    with (
        pytest.raises(ForestageError, match="would fit"),
        memory.enough_memory(SHAPE, torch.float32, slots=3, max_context=40, device=device),
    ):
        raise error


def test_other_errors_stay_what_they_are() -> None:
    with (
        pytest.raises(RuntimeError, match="a bug"),
        memory.enough_memory(SHAPE, torch.float32, slots=3, max_context=40, device=torch.device("cpu")),
    ):
        raise RuntimeError("a bug")


def test_free_memory_of_this_machine_is_known_and_plausible() -> None:
    free = memory.free_bytes(torch.device("cpu"))
    assert free is None or 1 << 20 < free < 1 << 50


def test_a_container_leaves_no_more_than_its_limit(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    limit, used = tmp_path / "limit", tmp_path / "used"
    monkeypatch.setattr(memory, "CONTAINERS", ((str(tmp_path / "none"), str(used)), (str(limit), str(used))))
    used.write_text("1000\n")
    for text, left in (("5000\n", 4000), ("500\n", 0)):
        limit.write_text(text)
        assert memory.free_bytes(torch.device("cpu")) == left
    limit.write_text("max\n")
    free = memory.free_bytes(torch.device("cpu"))
    assert free is None or free > 5000
