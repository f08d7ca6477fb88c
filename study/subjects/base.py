"""What every subject of a study offers."""

from collections.abc import Callable
from dataclasses import dataclass

from study.blocks import Section
from study.stages import Stage, StudyContext


@dataclass(frozen=True)
class Subject:
    """A stage that computes, and the section that shows its result."""

    stage: Stage
    section: Callable[[StudyContext], Section]
