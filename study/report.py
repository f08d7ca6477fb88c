"""Write the report: one self-contained page with a section for each subject's results."""

from importlib import resources
from typing import Any

from jinja2 import Environment, StrictUndefined

from catalog.files import write_text
from study.blocks import Picture, Section
from study.numbers import count, counted
from study.pipeline import SUBJECTS
from study.remaking import remade
from study.stages import StudyContext


def write_report(context: StudyContext) -> None:
    """Write ``report.html``, and its pictures under ``figures/`` for use elsewhere; the results must be complete.

    Raises:
        ForestageError: if a file cannot be written.
    """
    shown = sorted(SUBJECTS, key=lambda subject: not subject.opens)  # the others stay in order
    sections = [remade(subject.section(context), context.model_config) for subject in shown]
    for block in (block for section in sections for block in section.blocks):
        if isinstance(block, Picture):
            write_text(context.out / "figures" / f"{block.identity}.svg", block.svg)
    write_text(context.out / "report.html", render_sections(context, sections))


def render_sections(context: StudyContext, sections: list[Section]) -> str:
    """The page with ``sections``, as HTML."""
    template = resources.files("study").joinpath("templates/report.html").read_text(encoding="utf-8")
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    trace = context.trace
    values: dict[str, Any] = {
        "title": trace.metadata.model,
        "subtitle": f"{count(trace.tokens)} tokens in {counted(trace.sequences, 'sequence')}: "
        f"{trace.layers} MoE layers, "
        f"{trace.experts} experts, top-{trace.top_k}",
        "synthetic": trace.metadata.synthetic,
        "facts": [fact for section in sections for fact in section.facts],
        "sections": sections,
    }
    return environment.from_string(template).render(values)
