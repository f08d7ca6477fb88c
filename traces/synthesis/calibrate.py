"""Find the generator's parameters: draw a sample, measure it, correct the parameters, repeat.

Each parameter controls one figure of its layer, which grows with it:

==========  ========================================  ==============================================
parameter   figure                                    correction
==========  ========================================  ==============================================
bias        load of each expert                       by the difference of log-odds of being chosen
copy        temporal overlap                          by the difference of log-odds of being kept
sequence    sequence overlap beyond domain overlap    in proportion to the root of the figure
domain      domain overlap beyond that of the loads   in proportion to the root of the figure
kind        mutual information with the neighbours    in proportion to the root of the figure
==========  ========================================  ==============================================

The first phase sets the chances that two tokens are of one kind (``Sameness``), so that they explain a share
(``KINDS_SHARE``) of the overlaps, on average over the layers. The second phase sets copy, sequence and domain, which
explain the rest layer by layer. A rest must be left, since sequence and domain cannot be negative.

Log-odds are additive in a score, and small effects grow with the square of a strength, so that each correction is about
a step of Newton's method. The figures depend a little on each other's parameters; the rounds settle that. Every round
draws the same random numbers, so that the corrections do not follow noise.
"""

from dataclasses import replace

import numpy as np

from catalog.progress import Progress
from traces.metadata import TraceMetadata
from traces.synthesis.measure import Figures, Floats, Measurement
from traces.synthesis.model import Generator, Parameters, Sameness, draw_structure
from traces.synthesis.parts import draw_parts
from traces.synthesis.plan import Plan
from traces.synthesis.profile import Profile

KIND_ROUNDS = 14
LAYER_ROUNDS = 22

KINDS_SHARE = 0.7
"""Share of each overlap's excess over the next wider one that kinds are to explain."""

REST = 0.3
"""Strength of sequence and domain when the second phase begins."""

DAMPING = 0.7
STEP = 1.6
"""Largest factor by which a strength changes in a round."""

STRONGEST = 6.0
"""Bound of every strength, and of a bias's distance from the mean: it multiplies chances by at most e⁶ ≈ 400."""


def calibrate(
    profile: Profile,
    plan: Plan,
    metadata: TraceMetadata,
    seed: int,
    progress: Progress | None = None,
) -> Parameters:
    """Parameters with which the sequences of ``plan`` have the figures of ``profile``.

    Args:
        profile: the targets.
        plan: a sample of sequences, large enough to measure.
        metadata: metadata of the trace to be made.
        seed: seed of the structure and of the sample.
        progress: called with (rounds done, rounds).
    """
    load, favourites = draw_structure(profile, seed)
    target = replace(profile.figures, load=load)
    layers = profile.shape.layers
    parameters = Parameters(
        bias=np.log(np.maximum(load, 1e-4)),
        domain=np.zeros(layers),
        sequence=np.zeros(layers),
        kind=np.where(np.isnan(_by_layer(target.mutual_information)), 0.0, 3.0),
        copy=np.zeros(layers),
        favourites=favourites,
        sameness=_first_sameness(target, favourites.shape[1], profile),
    )
    rounds = KIND_ROUNDS + LAYER_ROUNDS
    for done in range(1, rounds + 1):
        measurement = Measurement(profile.shape.layers, profile.shape.experts, profile.shape.top_k)
        for part, continues in draw_parts(Generator(parameters, profile.shape, plan, seed), plan, metadata):
            measurement.add(part, continues=continues)
        found = measurement.figures()
        _correct_choice(parameters, target, found, profile)
        if done <= KIND_ROUNDS:
            _correct_sameness(parameters.sameness, target, found)
        elif done == KIND_ROUNDS + 1:
            parameters.domain[:] = np.where(np.isnan(target.domain_overlap), 0.0, REST)
            parameters.sequence[:] = np.where(np.isnan(target.sequence_overlap), 0.0, REST)
        else:
            _correct_layers(parameters, target, found, profile)
        if progress is not None:
            progress(done, rounds)
    return parameters


def _first_sameness(target: Figures, kinds: int, profile: Profile) -> Sameness:
    """The chances that would explain the overlaps if three quarters of a token's experts were favourites."""
    chosen = profile.shape.top_k / profile.shape.experts
    base = float(np.mean(target.load_overlap)) * chosen
    # Two tokens of one kind then share 0.75² of their experts.
    domain, sequence, neighbours = (
        (float(np.nanmean(overlap)) * chosen - base) / ((1 - base) * 0.75**2) if not np.isnan(overlap).all() else 0.0
        for overlap in (target.domain_overlap, target.sequence_overlap, target.temporal_overlap)
    )
    sameness = Sameness(1 / kinds, domain, sequence, neighbours)
    _order(sameness, has_domains=not np.isnan(target.domain_overlap).all())
    return sameness


def _correct_sameness(sameness: Sameness, target: Figures, found: Figures) -> None:
    """Move the chances towards those that explain the overlaps on average."""
    wanted, got = _excesses(target), _excesses(found)
    steps = [
        sameness.domain - sameness.anywhere,
        sameness.sequence - sameness.domain,
        sameness.neighbours - sameness.sequence,
    ]
    for index, step in enumerate(steps):
        steps[index] = step * float(_factor(np.array(KINDS_SHARE * wanted[index]), np.array(got[index]))) ** 2
    sameness.domain = sameness.anywhere + steps[0]
    sameness.sequence = sameness.domain + steps[1]
    sameness.neighbours = sameness.sequence + steps[2]
    _order(sameness, has_domains=not np.isnan(target.domain_overlap).all())


def _excesses(figures: Figures) -> list[float]:
    """Mean excess of the domain overlap over the loads', the sequence overlap over the domain's, neighbours' over that.

    0 where the trace has nothing to measure.
    """
    floor = figures.load_overlap
    excesses = []
    for overlap in (figures.domain_overlap, figures.sequence_overlap, figures.temporal_overlap):
        here = np.where(np.isnan(overlap), floor, overlap)
        excesses.append(float(np.mean(here - floor)))
        floor = here
    return excesses


def _order(sameness: Sameness, *, has_domains: bool) -> None:
    """Keep the chances ascending and below 1."""
    sameness.domain = (
        float(np.clip(sameness.domain, sameness.anywhere * 1.01, 0.9)) if has_domains else sameness.anywhere
    )
    sameness.sequence = float(np.clip(sameness.sequence, sameness.domain * 1.01, 0.95))
    sameness.neighbours = float(np.clip(sameness.neighbours, sameness.sequence, 0.98))


def _correct_choice(parameters: Parameters, target: Figures, found: Figures, profile: Profile) -> None:
    """Correct bias and kind."""
    chosen = profile.shape.top_k / profile.shape.experts  # of an expert of mean load
    parameters.bias += DAMPING * (_log_odds(target.load * chosen) - _log_odds(found.load * chosen))
    parameters.bias -= parameters.bias.mean(axis=1, keepdims=True)
    np.clip(parameters.bias, -STRONGEST, STRONGEST, out=parameters.bias)
    parameters.kind *= _factor(_by_layer(target.mutual_information), _by_layer(found.mutual_information))
    np.clip(parameters.kind, 0.0, STRONGEST, out=parameters.kind)


def _correct_layers(parameters: Parameters, target: Figures, found: Figures, profile: Profile) -> None:
    """Correct copy, sequence and domain."""
    chosen = profile.shape.top_k / profile.shape.experts
    step = _log_odds(target.temporal_overlap * chosen) - _log_odds(found.temporal_overlap * chosen)
    parameters.copy += DAMPING * np.nan_to_num(step)
    np.clip(parameters.copy, -STRONGEST, STRONGEST, out=parameters.copy)

    floor = np.where(np.isnan(target.domain_overlap), target.load_overlap, target.domain_overlap)
    found_floor = np.where(np.isnan(found.domain_overlap), found.load_overlap, found.domain_overlap)
    parameters.sequence *= _factor(target.sequence_overlap - floor, found.sequence_overlap - found_floor)
    parameters.domain *= _factor(target.domain_overlap - target.load_overlap, found.domain_overlap - found.load_overlap)
    for strength in (parameters.sequence, parameters.domain):
        np.clip(strength, 0.0, STRONGEST, out=strength)


def _by_layer(pairs: Floats) -> Floats:
    """A figure of layer pairs as one of each layer: the mean over the pairs it is in (NaN for a single layer)."""
    if not len(pairs):
        return np.full(1, np.nan)
    return (np.concatenate([pairs[:1], pairs]) + np.concatenate([pairs, pairs[-1:]])) / 2


def _log_odds(share: Floats) -> Floats:
    """log p/(1 − p), with p kept away from 0 and 1."""
    inside = np.clip(share, 1e-4, 1 - 1e-3)
    return np.log(inside / (1 - inside))


def _factor(target: Floats, found: Floats) -> Floats:
    """The factor for a strength whose figure is ``found`` and should be ``target``; 1 where either is unknown."""
    least = 1e-4
    ratio = np.maximum(target, least) / np.maximum(found, least)
    return np.nan_to_num(np.clip(ratio, STEP**-2, STEP**2) ** (DAMPING / 2), nan=1.0)
