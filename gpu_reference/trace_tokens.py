"""Decode the tokens of a trace from their hashes, with the tokenizer whose tokens were hashed."""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING

import numpy as np

from catalog.errors import ForestageError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

    from traces import RoutingTrace


def byte_of_character() -> dict[str, int]:
    """Return the byte for which each character of a byte-level tokenizer's tokens stands (GPT-2's alphabet)."""
    printable = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [value for value in range(256) if value not in set(printable)]
    return {chr(value): value for value in printable} | {chr(256 + n): value for n, value in enumerate(others)}


def token_bytes(tokenizer: Tokenizer) -> list[bytes]:
    """Return the bytes of every token of a byte-level tokenizer, by id; those of a special token are its name's."""
    byte_of = byte_of_character()
    special = set(tokenizer.get_added_tokens_decoder())
    texts = sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])
    return [
        text.encode() if token in special else bytes(byte_of[character] for character in text) for text, token in texts
    ]


def token_hashes(tokenizer: Tokenizer) -> np.ndarray:
    """Return the CRC-32 of every token's bytes: u32 ``[vocabulary]``."""
    return np.asarray([zlib.crc32(value) for value in token_bytes(tokenizer)], dtype=np.uint32)


def tokens_of(trace: RoutingTrace, tokenizer: Tokenizer) -> np.ndarray:
    """Return the token ids for which a trace's hashes stand: i64 ``[tokens]``.

    Raises:
        ForestageError: if the trace has no hashes, they are not this tokenizer's, or two tokens have the same hash.
    """
    if trace.token_hash is None:
        raise ForestageError("trace: token_hash: none recorded; its tokens are not known")
    hashes = token_hashes(tokenizer)
    order = np.argsort(hashes)
    ordered = hashes[order]
    if (ordered[1:] == ordered[:-1]).any():
        raise ForestageError("tokenizer: two tokens have the same CRC-32; hashes do not tell them apart")
    places = np.minimum(np.searchsorted(ordered, trace.token_hash), len(ordered) - 1)
    unknown = ordered[places] != trace.token_hash
    if unknown.any():
        row = int(np.flatnonzero(unknown)[0])
        raise ForestageError(f"trace: token_hash[{row}]: {trace.token_hash[row]} is no token of this tokenizer")
    return order[places].astype(np.int64)
