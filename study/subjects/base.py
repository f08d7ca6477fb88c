"""The interface of a study's subjects."""

from collections.abc import Callable
from dataclasses import dataclass

from study.blocks import Note, Section
from study.stages import Stage, StudyContext


def nothing_needed(context: StudyContext) -> str | None:
    """``lacks`` of a subject that every study can have."""
    return None


@dataclass(frozen=True)
class Subject:
    """A stage that computes, and the section that shows its result.

    Attributes:
        stage: computes the result.
        show: makes the section from the results.
        title: title of the section.
        lacks: returns why the study cannot have the subject, and how it could; ``None`` if nothing is missing. It is
            called for every subject before the first stage runs, so it must be fast; ``context.left_out`` then holds
            the earlier subjects that are left out.
        opens: whether the report opens with it.
    """

    stage: Stage
    show: Callable[[StudyContext], Section]
    title: str
    lacks: Callable[[StudyContext], str | None] = nothing_needed
    opens: bool = False

    def section(self, context: StudyContext) -> Section:
        """The section, or the reason why the subject is left out."""
        why = context.left_out.get(self.stage.name)
        if why is None:
            return self.show(context)
        return Section(id=self.stage.name, title=self.title, blocks=(Note(f"Left out: {why}."),))
