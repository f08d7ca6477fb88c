"""The generator: how a synthetic trace's experts are drawn.

Every token has one of M *kinds*, the same in all layers: that links the layers. Each kind has K *favourite* experts in
each layer; the higher an expert's load, the more kinds have it as a favourite. Kinds are drawn in a hierarchy: a domain
has a distribution over kinds; a sequence has one near its domain's (Dirichlet distributions); a token keeps the kind of
the token before with some chance, else draws one from its sequence's distribution.

A token's K experts of a layer are drawn one after the other, without repetition, each with a chance proportional to
exp(score), where the score of expert e of layer l is

    bias[l, e]                                  load
    + kind[l] where e is a favourite of the token's kind
    + domain[l] · z(domain)[l, e]               what a domain's sequences have in common beyond their kinds
    + sequence[l] · z(sequence)[l, e]           what a sequence's tokens have in common beyond their kinds
    + copy[l] where the previous token of the sequence chose e

where z is standard normal and drawn once for every domain and sequence. Taking the K largest of score + Gumbel noise is
the same as drawing one after the other (J. Yellott, "The relationship between Luce's choice axiom,
Thurstone's theory of comparative judgment, and the double exponential distribution", 1977); the order is the rank.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from catalog.compiled import njit
from traces.schema import id_dtype
from traces.statistics.cross_layer import mutual_information_bits
from traces.synthesis.measure import Floats
from traces.synthesis.plan import Plan
from traces.synthesis.profile import Profile, Shape

NOISE_BYTES = 8 << 20
"""Most bytes of random words held at once."""

MOST_KINDS = 1024

STRUCTURE_LAYERS = 6
"""Number of layers used to choose the number of kinds."""

FAVOURED = 0.7
"""Share of a token's experts assumed to be favourites of its kind when the number of kinds is chosen."""

_LEVELS = (np.arange(1 << 16) + 0.5) / (1 << 16)
GUMBEL = (-np.log(-np.log(_LEVELS))).astype(np.float32)
"""Standard Gumbel noise for each 16-bit random word: the mid-quantiles."""

STRUCTURE, DOMAINS, SEQUENCES, KINDS, NOISE, PLAN, WEIGHTS = range(7)
"""Independent streams of random numbers from one seed."""


@dataclass
class Sameness:
    """Chances that two tokens have the same kind, ascending.

    Attributes:
        anywhere: tokens of different domains, 1/M.
        domain: tokens of different sequences of one domain.
        sequence: tokens of one sequence, far apart.
        neighbours: consecutive tokens.
    """

    anywhere: float
    domain: float
    sequence: float
    neighbours: float

    @property
    def domain_concentration(self) -> float:
        """α of p(domain) ~ Dirichlet(α · uniform), for which E Σ p² is ``domain``."""
        return (1 - self.domain) / max(self.domain - self.anywhere, 1e-6)

    @property
    def sequence_concentration(self) -> float:
        """α of p(sequence) ~ Dirichlet(α · p(domain)), for which E Σ p² is ``sequence``."""
        return (1 - self.sequence) / max(self.sequence - self.domain, 1e-6)

    @property
    def stay(self) -> float:
        """Chance that a token keeps its predecessor's kind without a draw."""
        return max(self.neighbours - self.sequence, 0.0) / (1 - self.sequence)


@dataclass(eq=False)
class Parameters:
    """The generator's parameters, f64 by layer; ``calibrate`` changes them in place.

    Attributes:
        bias: ``[layers, experts]``.
        domain, sequence, kind, copy: ``[layers]``.
        favourites: i64 ``[layers, kinds, top_k]``.
        sameness: the chances that two tokens have the same kind.
    """

    bias: Floats
    domain: Floats
    sequence: Floats
    kind: Floats
    copy: Floats
    favourites: npt.NDArray[np.int64]
    sameness: Sameness


def draw_structure(profile: Profile, seed: int) -> tuple[Floats, npt.NDArray[np.int64]]:
    """Draw each expert's load, ``[layers, experts]``, and ``Parameters.favourites``.

    The fewer kinds, the more a layer tells about the next. Their number is at least N/K, and the largest at which the
    target mutual information is reached if a share ``FAVOURED`` of a token's experts are favourites.
    """
    load = np.random.default_rng([seed, STRUCTURE]).permuted(profile.figures.load, axis=1)
    shape = profile.shape
    wanted = float(np.nanmean(profile.figures.mutual_information)) if shape.layers > 1 else 0.0
    sample = load[:STRUCTURE_LAYERS]
    few = math.ceil(shape.experts / shape.top_k)
    many = max(few, MOST_KINDS)
    while few < many:
        middle = (few + many + 1) // 2
        if _expected_information(sample, _favourites(sample, shape, middle, seed), shape) >= wanted:
            few = middle
        else:
            many = middle - 1
    return load, _favourites(load, shape, few, seed)


def _favourites(load: Floats, shape: Shape, kinds: int, seed: int) -> npt.NDArray[np.int64]:
    """Favourite experts ``[layers, kinds, top_k]``: each expert as often as its load requires, dealt out evenly."""
    generator = np.random.default_rng([seed, STRUCTURE, kinds])
    favourites = np.empty((len(load), kinds, shape.top_k), np.int64)
    for layer, loads in enumerate(load):
        order = generator.permutation(shape.experts)
        # An expert that is in every kind has its full share; the surplus goes to the other experts.
        share = loads[order] / loads.sum() * shape.top_k
        while np.any(over := share > 1):
            share[over] = 1
            rest = share < 1
            share[rest] *= (shape.top_k - np.count_nonzero(~rest)) / share[rest].sum()
        ends = np.cumsum(share) * kinds
        ends *= kinds * shape.top_k / ends[-1]
        # Systematic sampling: draw i is the expert in whose stretch i + ½ lies. No stretch is longer than M draws, so
        # dealing draw i to kind i mod M gives no kind an expert twice.
        draws = order[np.searchsorted(ends, np.arange(kinds * shape.top_k) + 0.5)]
        favourites[layer] = draws.reshape(shape.top_k, kinds).T[generator.permutation(kinds)]
    return favourites


def _expected_information(load: Floats, favourites: npt.NDArray[np.int64], shape: Shape) -> float:
    """Mutual information of adjacent layers of ``load [layers, experts]``, in log₂(N/K); kinds are equally frequent."""
    if len(load) < 2:
        return 0.0
    shares = (1 - FAVOURED) * np.repeat(load[:, None] / shape.experts, favourites.shape[1], axis=1)
    favoured = np.take_along_axis(shares, favourites, axis=2) + FAVOURED / shape.top_k
    np.put_along_axis(shares, favourites, favoured, axis=2)
    bits = [mutual_information_bits(first.T @ second) for first, second in pairwise(shares)]
    return float(np.mean(bits)) / math.log2(shape.experts / shape.top_k)


class Generator:
    """Draws routing for the sequences of a plan; seed and parameters determine it, whatever the size of the pieces.

    Args:
        parameters: read anew for each piece.
        shape: shape of the trace.
        plan: sequences of the trace.
        seed: seed of every random number.
    """

    def __init__(self, parameters: Parameters, shape: Shape, plan: Plan, seed: int) -> None:
        self._parameters = parameters
        self._shape = shape
        self._plan = plan
        self._seed = seed
        self._domains = {domain: index for index, domain in enumerate(dict.fromkeys(plan.domains))}
        self._domain_noise = lru_cache(maxsize=64)(self._draw_domain)

    def pieces(self) -> Iterator[tuple[int, int, npt.NDArray[np.unsignedinteger]]]:
        """``(sequence, first token within it, ids [tokens, layers, top_k])``, in order; long sequences give several."""
        layers, experts, top_k = self._shape.layers, self._shape.experts, self._shape.top_k
        noise = np.random.default_rng([self._seed, NOISE])
        topics = np.random.default_rng([self._seed, SEQUENCES])
        kinds = _Kinds(self._parameters.sameness, self._parameters.favourites.shape[1], self._seed)
        previous = np.full((layers, top_k), -1, np.int64)
        base = np.empty((layers, experts), np.float32)
        copy, favour = self._parameters.copy.astype(np.float32), self._parameters.kind.astype(np.float32)
        most = max(1, NOISE_BYTES // (2 * layers * experts))
        for sequence, start, stop in self._plan.pieces(most):
            if start == 0:
                domain = self._domains[self._plan.domains[self._plan.source[sequence]]]
                kinds.start_sequence(domain)
                topic = topics.standard_normal((layers, experts), np.float32)
                base[:] = self._base(domain, topic)
                previous[:] = -1
            words = noise.integers(1 << 16, size=(stop - start, layers, experts), dtype=np.uint16)
            kind = kinds.draw(stop - start)
            ids = np.empty((stop - start, layers, top_k), id_dtype(experts))
            _draw(base, copy, favour, self._parameters.favourites, kind, GUMBEL, words, previous, ids)
            yield sequence, start, ids

    def _base(self, domain: int, topic: npt.NDArray[np.float32]) -> Floats:
        """Scores of a sequence's experts ``[layers, experts]``, before a token's kind and predecessor are added."""
        parameters = self._parameters
        shared = self._domain_noise(domain)
        return parameters.bias + parameters.domain[:, None] * shared + parameters.sequence[:, None] * topic

    def _draw_domain(self, domain: int) -> npt.NDArray[np.float32]:
        """z of a domain, from its own stream, so that it does not depend on the sequences before."""
        generator = np.random.default_rng([self._seed, DOMAINS, domain])
        return generator.standard_normal((self._shape.layers, self._shape.experts), np.float32)


class _Kinds:
    """Draws the kinds of the tokens of one sequence after another."""

    def __init__(self, sameness: Sameness, count: int, seed: int) -> None:
        self._sameness = sameness
        self._count = count
        self._seed = seed
        self._generator = np.random.default_rng([seed, KINDS])
        self._edges = np.empty(0)
        self._last = -1

    def start_sequence(self, domain: int) -> None:
        """Draw the sequence's distribution over kinds."""
        alpha = self._sameness.sequence_concentration * self._domain_shares(domain)
        shares = self._generator.standard_gamma(alpha)
        # If every α is tiny, all shares may underflow: then one kind gets everything, as it nearly does in theory.
        if not shares.sum() > 0:
            shares = np.zeros(self._count)
            shares[self._generator.integers(self._count)] = 1
        self._edges = np.cumsum(shares / shares.sum())
        self._last = -1

    def draw(self, tokens: int) -> npt.NDArray[np.int64]:
        """Kinds of the next ``tokens`` tokens of the sequence."""
        uniform = self._generator.random((tokens, 2))
        drawn = np.minimum(np.searchsorted(self._edges, uniform[:, 0], side="right"), self._count - 1)
        fresh = uniform[:, 1] >= self._sameness.stay
        if self._last < 0:
            fresh[0] = True
        since = np.maximum.accumulate(np.where(fresh, np.arange(tokens), -1))
        kinds = np.where(since >= 0, drawn[since], self._last)
        self._last = int(kinds[-1])
        return kinds

    def _domain_shares(self, domain: int) -> Floats:
        """The domain's distribution over kinds, kept away from 0."""
        if self._sameness.domain <= self._sameness.anywhere:
            return np.full(self._count, 1 / self._count)
        generator = np.random.default_rng([self._seed, KINDS, domain])
        shares = generator.standard_gamma(np.full(self._count, self._sameness.domain_concentration / self._count))
        shares = np.maximum(shares, 1e-9)
        return shares / shares.sum()


@njit(fastmath=True)
def _draw(
    base: npt.NDArray[np.float32],
    copy: npt.NDArray[np.float32],
    favour: npt.NDArray[np.float32],
    favourites: npt.NDArray[np.int64],
    kind: npt.NDArray[np.int64],
    gumbel: npt.NDArray[np.float32],
    words: npt.NDArray[np.uint16],
    previous: npt.NDArray[np.int64],
    ids: npt.NDArray[np.unsignedinteger],
) -> None:
    """Fill ``ids [tokens, layers, top_k]``; read and update ``previous [layers, top_k]`` (−1: none)."""
    tokens, layers, top_k = ids.shape
    experts = base.shape[1]
    scores = np.empty(experts, np.float32)
    best = np.empty(top_k, np.float32)
    for token in range(tokens):
        for layer in range(layers):
            for expert in range(experts):
                scores[expert] = base[layer, expert] + gumbel[words[token, layer, expert]]
            for i in range(top_k):
                scores[favourites[layer, kind[token], i]] += favour[layer]
            if previous[layer, 0] >= 0:
                for i in range(top_k):
                    scores[previous[layer, i]] += copy[layer]
            # Keep the K best sorted, by insertion.
            best[:] = -np.float32(1e30)
            for expert in range(experts):
                if scores[expert] <= best[top_k - 1]:
                    continue
                place = top_k - 1
                while place > 0 and scores[expert] > best[place - 1]:
                    best[place] = best[place - 1]
                    previous[layer, place] = previous[layer, place - 1]
                    place -= 1
                best[place] = scores[expert]
                previous[layer, place] = expert
            for i in range(top_k):
                ids[token, layer, i] = previous[layer, i]
