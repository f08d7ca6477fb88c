"""Published recordings whose files do not say whose they are."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Recording:
    """A published recording: which model (``None`` where its files say so themselves), whose, under which licence."""

    model: str | None
    source: str
    licence: str


# The recordings' own files name neither source nor licence (nor, for the .npz, the model): known by the file's name.
RECORDINGS = {
    "gpt_oss_20b": Recording(
        "openai/gpt-oss-20b", "github AmanPriyanshu/GPT-OSS-MoE-ExpertFingerprinting @72b368f", "Apache-2.0"
    ),
    "deepseek_v2_lite_esft": Recording("deepseek-ai/ESFT-vanilla-lite", "github deepseek-ai/ESFT @579a771", "MIT"),
    "big_moe_on_edge": Recording(None, "github Helldez/BigMoeOnEdge @2d4f2b1", "Apache-2.0"),
}


def known_recording(path: Path) -> Recording | None:
    """The published recording whose file name ``path`` begins with, or ``None``."""
    return next((recording for prefix, recording in RECORDINGS.items() if path.name.startswith(prefix)), None)
