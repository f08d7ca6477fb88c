"""The identity of a token: CRC-32 of its bytes, for the tokenizers of published models."""

from __future__ import annotations

import re
import zlib
from typing import TYPE_CHECKING

import numpy as np

from gpu_reference.trace_tokens import byte_of_character

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_BYTE_FALLBACK = re.compile(r"<0x([0-9A-Fa-f]{2})>")
_BLANK = "\N{LOWER ONE EIGHTH BLOCK}"
"""SentencePiece's character for a blank."""


def identity_hashes(tokenizer: Tokenizer, vocabulary: int) -> np.ndarray:
    """CRC-32 of every token's bytes: u32 ``[vocabulary]``; 0 for an id without a token.

    In a byte-level tokenizer every character of a token stands for a byte; in others (SentencePiece's) a token is text
    with ``▁`` for a blank and ``<0x0A>`` for a byte. The bytes of an added (special) token are those of its name.
    """
    texts = {token: text for text, token in tokenizer.get_vocab().items()}
    added = set(tokenizer.get_added_tokens_decoder())
    alphabet = byte_of_character()
    byte_level = all(set(text) <= alphabet.keys() for token, text in texts.items() if token not in added)
    hashes = np.zeros(vocabulary, np.uint32)
    for token, text in texts.items():
        if token >= vocabulary:
            continue
        if token in added:
            value = text.encode()
        elif byte_level:
            value = bytes(alphabet[character] for character in text)
        else:
            value = _sentencepiece_bytes(text)
        hashes[token] = zlib.crc32(value)
    return hashes


def _sentencepiece_bytes(text: str) -> bytes:
    fallback = _BYTE_FALLBACK.fullmatch(text)
    return bytes([int(fallback[1], 16)]) if fallback else text.replace(_BLANK, " ").encode()
