"""Clean texts: marked-up documentation to running English prose, and source files to plain code.

If directives, tables and code samples were left in the prose, the "prose" domain would be half code, and the two
domains would route alike for the wrong reason.
"""

import re

# Directives whose body is itself prose; the body of every other directive is dropped.
_PROSE_DIRECTIVES = frozenset(
    """
    note warning tip hint important caution danger attention admonition seealso versionadded versionchanged deprecated
    topic sidebar function method class classmethod staticmethod attribute data exception setting django-admin
    templatetag templatefilter fieldlookup option describe object confval event change module py:function py:method
    py:class py:attribute rst:directive rst:role glossary epigraph rubric
    """.split()  # noqa: SIM905 (a word list reads better)
)
_DIRECTIVE = re.compile(r"^\s*\.\.\s+([\w:.-]+)::(.*)$")
_COMMENT = re.compile(r"^\s*\.\.(\s|$)")
_FIELD = re.compile(r"^\s*:[\w][^:`]*:(\s|$)")
_UNDERLINE = re.compile(r"^\s*([=\-~^\"'`#*+.:_<>])\1{2,}\s*$")
_TABLE = re.compile(r"^\s*([|+]|={2,}\s+=)")
_FENCE = re.compile(r"^\s*(```|~~~|:::)")
_LIST_ITEM = re.compile(r"^(\s*)([*+•-]|\d+[.)]|#\.|\(\w\))\s+")

_ROLE_WITH_TARGET = re.compile(r":[\w:+.-]+:`([^`<]+?)\s*<[^`>]*>`")
_ROLE = re.compile(r":[\w:+.-]+:`[~!]?([^`]+)`")
_LINK = re.compile(r"`([^`<]+?)\s*<[^`>]*>`_{0,2}")
_MARKDOWN_LINK = re.compile(r"\[([^\]]+)\]\([^)]*\)")
_LITERAL = re.compile(r"``([^`]+)``")
_QUOTED = re.compile(r"`([^`]+)`_{0,2}")
_STRONG = re.compile(r"(?<!\w)\*{1,2}(\S(?:[^*]*\S)?)\*{1,2}(?!\w)")
_URL = re.compile(r"<?https?:\S+>?")
_SUBSTITUTION = re.compile(r"\|([\w -]+)\|")

_MINIMUM_WORDS = 8
_MINIMUM_LETTERS = 0.74


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())


def _inline(text: str) -> str:
    """Strip inline markup: roles, links, literals, emphasis, addresses."""
    for pattern in (_ROLE_WITH_TARGET, _ROLE, _LINK, _MARKDOWN_LINK, _LITERAL, _QUOTED, _STRONG):
        text = pattern.sub(r"\1", text)
    text = _SUBSTITUTION.sub(r"\1", _URL.sub("", text))
    return re.sub(r"\s+", " ", text.replace("\\", "")).strip()


def _is_prose(paragraph: str) -> bool:
    """Whether a paragraph is made of sentences: enough words, mostly letters, punctuation at the end."""
    if len(paragraph.split()) < _MINIMUM_WORDS or paragraph[-1] not in ".?!:)\"'”’":
        return False
    letters = sum(character.isalpha() for character in paragraph)
    symbols = sum(character in "{}[]<>=_$|\\@#/" for character in paragraph)
    return letters >= _MINIMUM_LETTERS * len(paragraph) and symbols <= 0.02 * len(paragraph)


def _blocks(lines: list[str]) -> list[str]:
    """Group the lines of reST or Markdown into raw paragraphs, leaving out everything that is not prose."""
    paragraphs: list[str] = []
    current: list[str] = []
    skip_deeper_than: int | None = None  # set inside the body of a dropped directive
    fenced = False
    paragraph_indent = 0

    def flush() -> None:
        if current:
            paragraphs.append(" ".join(current))
            current.clear()

    for line in lines:
        if _FENCE.match(line):
            flush()
            fenced = not fenced
            continue
        if fenced:
            continue
        if not line.strip():
            if current and current[-1].endswith("::"):
                skip_deeper_than = paragraph_indent
            flush()
            continue
        depth = _indent(line)
        if skip_deeper_than is not None:
            if depth > skip_deeper_than:
                continue
            skip_deeper_than = None
        directive = _DIRECTIVE.match(line)
        if directive:
            flush()
            if directive.group(1) not in _PROSE_DIRECTIVES:
                skip_deeper_than = depth
            continue
        if _COMMENT.match(line) or line.lstrip().startswith(">>>"):
            flush()
            skip_deeper_than = depth if _COMMENT.match(line) else None
            continue
        if _UNDERLINE.match(line) or _TABLE.match(line) or _FIELD.match(line) or line.startswith("#"):
            current.clear()  # the line above an underline is a title, not a sentence
            continue
        item = _LIST_ITEM.match(line)
        if item:
            flush()
            line = line[item.end() :]
        if not current:
            paragraph_indent = depth
        current.append(line.strip())
    flush()
    return paragraphs


def prose_from_markup(text: str) -> str:
    """Return the running prose of a reST or Markdown document: one paragraph per line, a blank line between them.

    Titles, directives, code samples, tables, field lists and addresses are left out; inline markup is replaced by its
    text.
    """
    kept = []
    for raw in _blocks(text.expandtabs(4).splitlines()):
        paragraph = _inline(raw)
        if paragraph.endswith("::"):
            paragraph = paragraph[:-1]
        if paragraph and _is_prose(paragraph):
            kept.append(paragraph)
    return "\n\n".join(kept) + "\n" if kept else ""


def prose_from_book(text: str) -> str:
    """Return a plain-text book with its lines joined into paragraphs; verse (short, ragged lines) keeps its lines."""
    paragraphs = []
    for block in re.split(r"\n\s*\n", text.replace("\r", "").replace("\x1a", "").expandtabs(4)):
        lines = [line.strip() for line in block.splitlines() if line.strip()]
        if not lines or not any(any(character.islower() for character in line) for line in lines):
            continue
        verse = len(lines) > 2 and sum(line[0].isupper() for line in lines) > 0.8 * len(lines)
        paragraphs.append(re.sub(r"[ ]+", " ", ("\n" if verse else " ").join(lines)))
    return "\n\n".join(paragraphs) + "\n" if paragraphs else ""


def code_from_source(text: str) -> str:
    """Return a source file with tabs expanded, trailing blanks stripped, and its leading licence comment removed."""
    lines = [line.rstrip() for line in text.expandtabs(4).splitlines()]
    start = 0
    while start < len(lines) and (not lines[start] or lines[start].startswith("#")):
        start += 1
    body = re.sub(r"\n{4,}", "\n\n\n", "\n".join(lines[start:])).strip("\n")
    return body + "\n" if body else ""
