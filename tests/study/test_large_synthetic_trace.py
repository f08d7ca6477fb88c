"""Writing and reading synthetic traces of 2 and 20 million tokens: the peak memory does not grow with the tokens."""

import json
import resource
import subprocess
import sys
from pathlib import Path

import pytest

MIB = 1 << 20
PEAK = """
import resource, subprocess, sys
done = subprocess.run([sys.executable, "-m", "study.cli", *sys.argv[1:]], capture_output=True, text=True)
print(done.returncode, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
sys.stderr.write(done.stderr)
"""


def peak_bytes(*arguments: object) -> int:
    """Peak resident memory of the command in a process of its own, mapped files included."""
    command = [sys.executable, "-c", PEAK, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    status, peak = (int(text) for text in done.stdout.split())
    assert status == 0, done.stderr
    return peak * (1 if sys.platform == "darwin" else 1024)


@pytest.mark.long
def test_peak_memory_is_steady_from_2_to_20_million_tokens(shipped_trace: Path, tmp_path: Path) -> None:
    peaks: dict[str, list[float]] = {}
    for tokens in (2_000_000, 20_000_000):
        path = tmp_path / f"{tokens}.safetensors"
        commands: dict[str, tuple[object, ...]] = {
            "synthesise": (
                "trace", "synthesise", "--from", shipped_trace, "--out", path, "--layers", 4, "--tokens", tokens,
                "--sequences", 2000, "--json",
            ),
            "info": ("trace", "info", path, "--json"),
            "stats": ("trace", "stats", path, "--json"),
            "evaluate": ("predictor", "evaluate", "--trace", path, "--predictor", "popularity", "--json"),
        }  # fmt: skip
        for name, command in commands.items():
            peaks.setdefault(name, []).append(peak_bytes(*command) / MIB)
    sys.stdout.write(json.dumps(peaks) + "\n")
    # The large file takes 1 GB; what grows is the system's allowance for mapped pages and noise.
    for name, (small, large) in peaks.items():
        assert large < small + 100, f"{name}: {small:.0f} MiB at 2 million tokens, {large:.0f} MiB at 20 million"


def test_the_peak_measured_is_the_commands_own() -> None:
    peak = peak_bytes("predictor", "list", "--json")
    assert 20 * MIB < peak < 2000 * MIB
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss > 0
