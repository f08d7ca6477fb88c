import pytest
import torch

from catalog.errors import ForestageError
from catalog.models import ModelRecord
from gpu_reference.decoder import Decoder
from gpu_reference.decoder.attention import QUERY_BLOCK
from gpu_reference.decoder.decoder import _Given
from gpu_reference.decoder.step import context_buckets
from tests.gpu_reference.decoder.whole_models import TINY, TINY_LATENT, forward, tiny

TOKENS = [int(token) for token in torch.randint(0, 100, (40,), generator=torch.Generator().manual_seed(0))]
BOTH = pytest.mark.parametrize("model", [TINY, TINY_LATENT], ids=["gqa", "mla"])


def one_by_one(decoder: Decoder, slot: int = 0, count: int = 40) -> torch.Tensor:
    return torch.cat([forward(decoder, [TOKENS[i]], [i], [slot]) for i in range(count)])


@BOTH
@pytest.mark.parametrize("parts", [(40,), (7, 33), (1, 9, 1, 29), (20, 1, 19), (8, 8, 8, 16)])
def test_prefill_in_parts_gives_what_decode_gives_whatever_the_window(
    model: ModelRecord, parts: tuple[int, ...]
) -> None:
    expected = one_by_one(tiny(model))
    decoder, found, start = tiny(model), [], 0
    for count in parts:
        found.append(forward(decoder, TOKENS[start : start + count], range(start, start + count), [2] * count))
        start += count
    torch.testing.assert_close(torch.cat(found), expected, rtol=1e-4, atol=1e-5)


def test_a_prefill_longer_than_a_block_of_queries_is_the_same_as_two() -> None:
    count = 2 * QUERY_BLOCK + 9
    tokens = [TOKENS[i % 40] for i in range(count)]
    whole = forward(tiny(max_context=count), tokens, range(count), [0] * count)
    decoder = tiny(max_context=count)
    first = forward(decoder, tokens[:100], range(100), [0] * 100)
    second = forward(decoder, tokens[100:], range(100, count), [0] * (count - 100))
    torch.testing.assert_close(torch.cat((first, second)), whole, rtol=1e-4, atol=1e-5)


@BOTH
def test_sequences_in_other_slots_change_nothing(model: ModelRecord) -> None:
    expected = one_by_one(tiny(model), count=12)
    decoder = tiny(model)
    forward(decoder, TOKENS[20:29], range(9), [1] * 9)
    found = []
    for position in range(12):  # slot 2, beside slots 0 and 1, which are elsewhere
        tokens = [TOKENS[position], TOKENS[position + 5], TOKENS[position + 7]]
        found.append(forward(decoder, tokens, [position, 9 + position, position], [2, 1, 0])[0])
    torch.testing.assert_close(torch.stack(found), expected, rtol=1e-4, atol=1e-5)


@BOTH
def test_slots_may_stand_in_any_order(model: ModelRecord) -> None:
    decoders = [tiny(model), tiny(model)]
    for decoder in decoders:
        for slot in range(3):
            forward(decoder, TOKENS[slot : slot + 5 + slot], range(5 + slot), [slot] * (5 + slot))
    in_order = forward(decoders[0], [1, 2, 3], [5, 6, 7], [0, 1, 2])
    mixed = forward(decoders[1], [3, 1, 2], [7, 5, 6], [2, 0, 1])
    torch.testing.assert_close(mixed[[1, 2, 0]], in_order, rtol=1e-5, atol=1e-6)


@BOTH
def test_the_same_calls_give_the_same_bits_whatever_the_slot_held_before(model: ModelRecord) -> None:
    decoder = tiny(model)
    first = one_by_one(decoder, slot=1)
    decoder.reset(1)
    again = one_by_one(decoder, slot=1)
    assert torch.equal(again, first)
    assert torch.equal(one_by_one(tiny(model), slot=1), first)


def test_a_windowed_layer_keeps_only_its_window() -> None:
    decoder = tiny()
    assert [cache.capacity for cache in decoder.caches] == [8, 40, 8, 40]
    elements = 3 * 2 * 2 * 8 * (8 + 40 + 8 + 40)  # slots, keys and values, heads, width, rows
    assert decoder.cache_bytes == 4 * elements


def test_a_context_that_was_not_recorded_is_random_but_always_the_same() -> None:
    logits = []
    for before in (0, 3):
        decoder = tiny()
        if before:
            forward(decoder, TOKENS[:before], range(before), [1] * before)
        decoder.reset(1, context=30)
        logits.append(forward(decoder, [7], [30], [1]))
    assert torch.equal(logits[0], logits[1])
    assert not torch.allclose(logits[0], forward(tiny(), [7], [0], [1]))


@pytest.mark.parametrize(
    ("positions", "slots", "told"),
    [
        ([40], [0], "position 40 exceeds max_context"),
        (range(38, 42), [0] * 4, "position 41 exceeds max_context"),
        ([-1], [0], "positions from 0"),
        ([0], [3], "slots of 0 to 2"),
        ([0, 1], [0], "give one of each for every token"),
        ([], [], "give one of each for every token"),
        ([0, 2], [0, 0], "without a gap"),
        ([1, 0], [0, 0], "without a gap"),
        ([0, 1, 0], [0, 0, 1], "one token a sequence"),
        ([1], [0], "position 1 does not follow the 0 tokens"),
        ([5, 4], [1, 2], "slot 2, layer 0: position 4 does not follow the 0 tokens"),
        ([4], [1], "position 4 does not follow the 5 tokens"),
    ],
)
def test_positions_that_the_cache_cannot_hold_are_refused(positions: list[int], slots: list[int], told: str) -> None:
    decoder = tiny()
    forward(decoder, TOKENS[:5], range(5), [1] * 5)
    hidden = torch.zeros(len(slots), 32)
    with pytest.raises(ForestageError, match=told) as caught:
        decoder.before_gate(0, hidden, positions, slots)
    assert "\n" not in str(caught.value)
    assert decoder.caches[0].lengths == [0, 5, 0]


def test_layers_count_their_own_tokens() -> None:
    decoder = tiny()
    forward(decoder, TOKENS[:2], range(2), [0] * 2)
    decoder.before_gate(0, torch.zeros(1, 32), [2], [0])
    with pytest.raises(ForestageError, match="slot 0, layer 0: position 2 does not follow the 3 tokens"):
        decoder.before_gate(0, torch.zeros(1, 32), [2], [0])
    decoder.before_gate(1, torch.zeros(1, 32), [2], [0])


def test_positions_changed_in_place_are_noticed() -> None:
    expected = one_by_one(tiny(), count=4)
    decoder, positions, found = tiny(), torch.zeros(1, dtype=torch.int64), []
    for i in range(4):
        positions.numpy()[0] = i  # PyTorch does not see this change
        hidden = decoder.embed(torch.tensor([TOKENS[i]]))
        for layer in range(decoder.layers):
            gate = decoder.before_gate(layer, hidden, positions, torch.zeros(1, dtype=torch.int64))
            ids, weights = decoder.choose(layer, gate.router_logits)
            moe = gate.normed * (weights * (ids + 1 + layer)).sum(dim=-1, keepdim=True) / 10
            hidden = decoder.after_experts(layer, gate.residual, moe, None)
        found.append(decoder.logits(hidden))
    assert torch.equal(torch.cat(found), expected)


def test_slots_contexts_and_tokens_outside_the_decoder_are_refused() -> None:
    decoder = tiny()
    with pytest.raises(ForestageError, match="slot 3: the decoder has slots 0 to 2"):
        decoder.reset(3)
    with pytest.raises(ForestageError, match="context 40: give 0 to 39"):
        decoder.reset(0, context=40)
    for token in (-1, 100):
        with pytest.raises(ForestageError, match=f"token id {token}: the vocabulary has 0 to 99"):
            decoder.embed(torch.tensor([3, token]))


def test_buckets_double_up_to_the_longest_context() -> None:
    assert context_buckets(40) == (40,)
    assert context_buckets(256) == (256,)
    assert context_buckets(257) == (256, 257)
    assert context_buckets(1500) == (256, 512, 1024, 1500)


@BOTH
def test_reading_more_rows_of_the_cache_than_hold_tokens_changes_nothing(model: ModelRecord) -> None:
    exact, wide, found = tiny(model), tiny(model, max_context=600), []
    exact.buckets = tuple(range(1, 41))
    for decoder in (exact, wide):
        forward(decoder, TOKENS[:11], range(11), [0] * 11)
        forward(decoder, TOKENS[:3], range(3), [1] * 3)
        found.append([forward(decoder, [5, i], [11 + i, 3 + i], [0, 1]) for i in range(20)])
    assert wide.step([256], [0]).bucket == 512
    torch.testing.assert_close(torch.cat(found[1]), torch.cat(found[0]), rtol=1e-4, atol=1e-5)


def test_tensors_on_a_gpu_are_read_again_once_they_change() -> None:
    def given(positions: torch.Tensor, slots: torch.Tensor) -> _Given:
        return _Given(positions, slots, (positions._version, slots._version))

    positions, slots = torch.tensor([3]), torch.tensor([0])
    before = given(positions, slots)
    assert given(positions, slots).is_still(before)
    assert not given(positions.clone(), slots).is_still(before)
    assert not given(positions, slots.clone()).is_still(before)
    assert not before.is_still(None)
    positions += 1
    assert not given(positions, slots).is_still(before)
    assert _Given.of([3], [0]) is None
    assert _Given.of(positions, slots) is None  # on the host they are always read
