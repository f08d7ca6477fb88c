"""Training windows: the tokens of each step, which depend only on the seed and the step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from catalog.errors import ForestageError
from gpu_reference.small_moe import END_OF_TEXT_ID
from gpu_reference.training.corpus import DOMAINS, Document

if TYPE_CHECKING:
    from tokenizers import Tokenizer


@dataclass(frozen=True)
class TokenStream:
    """The tokens of one domain, documents one after another (u16 ``[tokens]``), and where each document starts."""

    tokens: np.ndarray
    document_starts: np.ndarray


def tokenise(documents: list[Document], tokenizer: Tokenizer, seed: int) -> dict[str, TokenStream]:
    """Return one stream per domain: documents in an order drawn from ``seed``, each ended by the end-of-text token."""
    streams = {}
    for number, domain in enumerate(DOMAINS):
        chosen = [document for document in documents if document.domain == domain]
        order = np.random.default_rng([seed, number]).permutation(len(chosen))
        pieces, starts, length = [], [], 0
        for index in order:
            ids = tokenizer.encode(chosen[index].text).ids
            pieces.append(np.asarray([*ids, END_OF_TEXT_ID], dtype=np.uint16))
            starts.append(length)
            length += len(ids) + 1
        tokens = np.concatenate(pieces) if pieces else np.zeros(0, dtype=np.uint16)
        streams[domain] = TokenStream(tokens, np.asarray(starts, dtype=np.int64))
    return streams


class WindowSampler:
    """Windows of ``context + 1`` tokens; each domain gives half of a batch, drawn without replacement in every epoch.

    Each epoch's windows start at a different offset, so that no window boundary occurs twice.
    """

    def __init__(self, streams: dict[str, TokenStream], *, context: int, batch: int, seed: int) -> None:
        if batch % len(DOMAINS):
            raise ForestageError(f"batch: {batch} is not a multiple of {len(DOMAINS)} domains; choose an even number")
        for domain in DOMAINS:
            if len(streams[domain].tokens) < 2 * (context + 1):
                raise ForestageError(f"corpus: domain {domain!r} is shorter than two windows of {context} tokens")
        self.streams = streams
        self.context = context
        self.batch = batch
        self.seed = seed
        self._orders: dict[tuple[int, int], np.ndarray] = {}

    def _window(self, domain_number: int, index: int) -> np.ndarray:
        tokens = self.streams[DOMAINS[domain_number]].tokens
        windows = (len(tokens) - self.context) // self.context - 1  # leaves room for any offset
        windows = max(windows, 1)
        epoch, place = divmod(index, windows)
        key = (domain_number, epoch)
        if key not in self._orders:
            generator = np.random.default_rng([self.seed, domain_number, epoch])
            room = len(tokens) - windows * self.context - 1
            phase = generator.integers(0, min(room, self.context) + 1)
            self._orders = {other: order for other, order in self._orders.items() if other[0] != domain_number}
            self._orders[key] = phase + self.context * generator.permutation(windows)
        start = int(self._orders[key][place])
        return tokens[start : start + self.context + 1]

    def batch_at(self, step: int) -> np.ndarray:
        """Return the batch of ``step``: i64 ``[batch, context + 1]``, one domain after the other."""
        share = self.batch // len(DOMAINS)
        rows = [self._window(domain, step * share + row) for domain in range(len(DOMAINS)) for row in range(share)]
        return np.stack(rows).astype(np.int64)

    def epochs_at(self, step: int) -> dict[str, float]:
        """Return how many epochs of each domain come before ``step``."""
        tokens = step * self.batch // len(DOMAINS) * self.context
        return {domain: tokens / max(len(self.streams[domain].tokens), 1) for domain in DOMAINS}


def validation_starts(stream: TokenStream, *, context: int, count: int) -> np.ndarray:
    """Return where up to ``count`` windows start that are spread evenly over a stream: i64 ``[windows]``."""
    available = available_windows(stream, context)
    if available < 1:
        raise ForestageError(f"validation: {len(stream.tokens)} held-out tokens are fewer than one window of {context}")
    return np.unique(np.linspace(0, available - 1, min(count, available)).astype(np.int64)) * context


def available_windows(stream: TokenStream, context: int) -> int:
    """Return how many windows of ``context`` tokens, each with the token after it, a stream has side by side."""
    return max(len(stream.tokens) - 1, 0) // context


def validation_windows(stream: TokenStream, *, context: int, count: int) -> np.ndarray:
    """Return up to ``count`` windows spread evenly over a stream: i64 ``[windows, context + 1]``."""
    starts = validation_starts(stream, context=context, count=count)
    return np.stack([stream.tokens[start : start + context + 1] for start in starts]).astype(np.int64)
