import zlib
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from catalog.errors import ForestageError
from gpu_reference.capturing.shipped_model import CaptureOptions, capture, choose_prompts
from gpu_reference.routers import RoutingRecorder
from gpu_reference.small_moe import train_tokenizer
from gpu_reference.trace_tokens import token_bytes, token_hashes, tokens_of
from gpu_reference.training.corpus import Document
from traces import DECODE, PREFILL, RoutingTrace

OPTIONS = CaptureOptions(sequences_per_domain=3, prompt=6, decode=40, temperature=8.0, batch=4, seed=1)
METADATA = {"model": "tiny", "source": "a test", "licence": "Apache-2.0"}


@pytest.fixture(scope="module")
def trace(tiny_model: Any, tokenizer: Any, documents: list[Document]) -> RoutingTrace:
    prompts = choose_prompts(documents, tokenizer, OPTIONS)
    return capture(tiny_model, tokenizer, prompts, options=OPTIONS, metadata=METADATA)


def test_phases_positions_and_domains(trace: RoutingTrace) -> None:
    assert trace.domains == ("code", "prose") * 3
    for index in range(trace.sequences):
        sequence = trace.sequence(index)
        assert sequence.position.tolist() == list(range(sequence.tokens))
        assert (sequence.phase[:6] == PREFILL).all()
        assert (sequence.phase[6:] == DECODE).all()
        assert sequence.tokens <= 6 + 40
    assert max(np.diff(trace.sequence_offsets)) == 6 + 40


def test_a_sequence_that_ends_by_itself_is_cut_there(trace: RoutingTrace, tokenizer: Any) -> None:
    lengths = np.diff(trace.sequence_offsets)
    assert lengths.min() < 46, "choose a seed with an early end, or this tests nothing"
    assert (tokens_of(trace, tokenizer) != 0).all()


def test_routing_is_that_of_the_token_processed(trace: RoutingTrace, tokenizer: Any, tiny_model: Any) -> None:
    """One pass over each whole sequence, without a cache and by itself, gives the routing at every position."""
    tokens = tokens_of(trace, tokenizer)
    assert trace.gate_weights is not None
    for index in range(trace.sequences):
        part = trace.sequence_slice(index)
        with RoutingRecorder(tiny_model) as recorder, torch.no_grad():
            tiny_model(input_ids=torch.from_numpy(tokens[part])[None])
            routing = recorder.take()
        assert np.array_equal(trace.expert_ids[part], routing.ids)
        np.testing.assert_allclose(trace.gate_weights[part], routing.weights, atol=1e-3)


def test_the_seed_decides(trace: RoutingTrace, tiny_model: Any, tokenizer: Any, documents: list[Document]) -> None:
    prompts = choose_prompts(documents, tokenizer, OPTIONS)
    again = capture(tiny_model, tokenizer, prompts, options=OPTIONS, metadata=METADATA)
    other = capture(tiny_model, tokenizer, prompts, options=OPTIONS.model_copy(update={"seed": 2}), metadata=METADATA)
    assert again.equals(trace)
    assert not other.equals(trace)


def test_metadata(trace: RoutingTrace) -> None:
    assert trace.metadata.ranked
    assert trace.metadata.gate_weight_kind == "normalised"
    assert (trace.experts, trace.top_k, trace.metadata.layer_map) == (8, 2, (0, 1, 2))
    assert not trace.metadata.synthetic


def test_prompts_are_held_out(documents: list[Document], tokenizer: Any) -> None:
    held_out = {document.name for document in documents if document.held_out}
    prompts = choose_prompts(documents, tokenizer, OPTIONS)
    assert {prompt.document for prompt in prompts} <= held_out
    assert len({(prompt.document, prompt.tokens.tobytes()) for prompt in prompts}) > 1


def test_too_few_prompts_is_an_error(documents: list[Document], tokenizer: Any) -> None:
    with pytest.raises(ForestageError, match=r"held-out code gives .* ask for fewer"):
        choose_prompts(documents, tokenizer, OPTIONS.model_copy(update={"sequences_per_domain": 1000}))


def test_token_bytes_are_the_text(tokenizer: Any) -> None:
    text = "def f_1(x):\n    return x — café\t🙂"
    ids = tokenizer.encode(text).ids
    pieces = token_bytes(tokenizer)
    assert b"".join(pieces[token] for token in ids) == text.encode()
    assert pieces[0] == b"<|endoftext|>"
    assert token_hashes(tokenizer)[ids[0]] == zlib.crc32(pieces[ids[0]])


def test_tokens_of_another_tokenizer_are_an_error(trace: RoutingTrace, documents: list[Document]) -> None:
    other = train_tokenizer([document.text[:50] for document in documents[:1]], 258)
    with pytest.raises(ForestageError, match=r"token_hash\[\d+\]: \d+ is no token of this tokenizer"):
        tokens_of(trace, other)
    with pytest.raises(ForestageError, match="token_hash: none recorded"):
        tokens_of(replace(trace, token_hash=None), other)
