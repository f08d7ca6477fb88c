"""The report: every section drawn from the stages' results into one self-contained page."""

from importlib import resources
from typing import Any

from jinja2 import Environment, StrictUndefined

from study.blocks import Section
from study.numbers import count
from study.pipeline import SUBJECTS
from study.stages import StudyContext


def render_report(context: StudyContext) -> str:
    """The HTML text of the report of ``context``, whose results are complete."""
    sections = [subject.section(context) for subject in SUBJECTS]
    return render_sections(context, sections)


def render_sections(context: StudyContext, sections: list[Section]) -> str:
    """Lay ``sections`` out in the page."""
    template = resources.files("study").joinpath("templates/report.html").read_text(encoding="utf-8")
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    trace = context.trace
    values: dict[str, Any] = {
        "title": trace.metadata.model,
        "subtitle": f"{count(trace.tokens)} tokens in {count(trace.sequences)} sequences: {trace.layers} MoE layers, "
        f"{trace.experts} experts, top-{trace.top_k}",
        "synthetic": trace.metadata.synthetic,
        "facts": [fact for section in sections for fact in section.facts],
        "sections": sections,
    }
    return environment.from_string(template).render(values)
