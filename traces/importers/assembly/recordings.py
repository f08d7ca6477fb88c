"""Published recordings whose files do not state their origin."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class Recording:
    """A published recording.

    Attributes:
        prefix: beginning of its files' names; other files of the same origin may have it too.
        model: the recorded model; ``None`` if its files state it.
        source: who published it.
        licence: its licence.
        digests: SHA-256 of the expert ids (u8 ``[tokens, layers, top_k]``) of each published file.
    """

    prefix: str
    model: str | None
    source: str
    licence: str
    digests: frozenset[str]


RECORDINGS = (
    Recording(
        "gpt_oss_20b",
        "openai/gpt-oss-20b",
        "github AmanPriyanshu/GPT-OSS-MoE-ExpertFingerprinting @72b368f",
        "Apache-2.0",
        frozenset({"ca50a2b2e10f4592276b325e47c70f48faf26811e0929eecdc48de086d2aab0a"}),
    ),
    Recording(
        "deepseek_v2_lite_esft",
        "deepseek-ai/ESFT-vanilla-lite",
        "github deepseek-ai/ESFT @579a771",
        "MIT",
        frozenset({"0eb417eb17714ff49fca65ac1cb66fdf04dd9d161002e73f59de24e43d09c010"}),
    ),
    Recording(
        "big_moe_on_edge",
        None,
        "github Helldez/BigMoeOnEdge @2d4f2b1",
        "Apache-2.0",
        frozenset(
            {
                "a750b9753e74ddc080b4b6cf8766d49af76f26d20ba521b0a0453559d50e8baf",
                "7b47969639110c177e396abb859090f5c7d4f60616d9c374aa7bb5b90799cb00",
            }
        ),
    ),
)


def model_of_name(path: Path) -> str | None:
    """The model of the published recording whose files have names like ``path``; a hint, which the shape may refute."""
    return next((recording.model for recording in RECORDINGS if path.name.startswith(recording.prefix)), None)


def published_recording(ids: npt.NDArray[np.unsignedinteger]) -> Recording | None:
    """The published recording with exactly these expert ids: a file's name does not prove source or licence."""
    digest = hashlib.sha256(np.ascontiguousarray(ids).data).hexdigest()
    return next((recording for recording in RECORDINGS if digest in recording.digests), None)
