"""Complete the commands in a report, so that they remake its figures: add the model configuration of the study."""

import shlex
from dataclasses import replace
from pathlib import Path

from study.blocks import Command, Section

TAKES_NO_MODEL = ("forestage rtl generate", "forestage pim check", "forestage pim stream")
"""Commands in reports that do not depend on a model and have no option for one."""

OTHER_CONFIG = ("forestage predictor train", "forestage study")
"""Commands with a ``--config`` of another meaning."""


def with_model_config(text: str, config: Path | None) -> str:
    """``text``'s commands with the option for ``config``; unchanged without a ``config`` or if they lack the option."""
    if config is None:
        return text
    return "\n".join(_line(line, shlex.quote(str(config))) for line in text.splitlines())


def _line(line: str, config: str) -> str:
    words = line.split()
    names = {" ".join(words[:2]), " ".join(words[:3])}
    if names & set(TAKES_NO_MODEL):
        return line
    return f"{line} {'--model-config' if names & set(OTHER_CONFIG) else '--config'} {config}"


def remade(section: Section, config: Path | None) -> Section:
    """``section`` with its commands completed."""
    blocks = tuple(
        replace(block, text=with_model_config(block.text, config)) if isinstance(block, Command) else block
        for block in section.blocks
    )
    return replace(section, blocks=blocks)
