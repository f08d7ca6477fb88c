"""What every subject of a study offers."""

from collections.abc import Callable
from dataclasses import dataclass

from study.blocks import Note, Section
from study.stages import Stage, StudyContext


def nothing_needed(context: StudyContext) -> str | None:
    """Of a subject that any study can have."""
    return None


@dataclass(frozen=True)
class Subject:
    """A stage that computes, and the section that shows its result.

    Attributes:
        stage: computes.
        show: the section, from the results.
        title: of the section.
        lacks: why the study cannot have the subject, and how it could; ``None`` where nothing is missing. Asked of
            every subject before the first stage runs, so it takes no time; ``context.left_out`` holds the subjects
            before it that are left out.
    """

    stage: Stage
    show: Callable[[StudyContext], Section]
    title: str
    lacks: Callable[[StudyContext], str | None] = nothing_needed

    def section(self, context: StudyContext) -> Section:
        """The section; where the subject is left out, the reason."""
        why = context.left_out.get(self.stage.name)
        if why is None:
            return self.show(context)
        return Section(id=self.stage.name, title=self.title, blocks=(Note(f"Left out: {why}."),))
