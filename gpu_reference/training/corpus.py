"""The corpus: files of source distributions in two domains; some whole files are held out.

All files have a permissive licence or are in the public domain; see `SOURCES` for versions, licences and hashes.
"""

import fnmatch
import tarfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from catalog.errors import ForestageError
from gpu_reference.training import cleaning
from gpu_reference.training.download import SourceDistribution, fetch

CODE = "code"
PROSE = "prose"
DOMAINS = (CODE, PROSE)

_HELD_OUT_ONE_IN = 20
_MINIMUM_CHARACTERS = 400
_MAXIMUM_CODE_CHARACTERS = 120_000  # a longer source file is a table, or generated
_MAXIMUM_PROSE_CHARACTERS = 1_000_000
_BOOK_PART_CHARACTERS = 20_000


@dataclass(frozen=True, kw_only=True)
class Selection:
    """The files of one distribution that are in one domain; patterns match the path inside the archive."""

    domain: str
    source: SourceDistribution
    include: tuple[str, ...]
    exclude: tuple[str, ...] = ()
    clean: Callable[[str], str]
    book: bool = False


@dataclass(frozen=True, kw_only=True)
class Document:
    """One cleaned file, or one part of a book."""

    name: str
    domain: str
    text: str

    @property
    def held_out(self) -> bool:
        """Whether the document is in the validation part: one in twenty, by the CRC-32 of its name."""
        return zlib.crc32(self.name.encode()) % _HELD_OUT_ONE_IN == 0


DJANGO = SourceDistribution(
    name="django",
    version="5.2.19",
    filename="django-5.2.19.tar.gz",
    sha256="ad03d8abc51dbff95ebf34b27123cf0c26a3b62db7ba0cd520783686362533d1",
    licence="BSD-3-Clause",
)
SQLALCHEMY = SourceDistribution(
    name="sqlalchemy",
    version="1.4.54",
    filename="sqlalchemy-1.4.54.tar.gz",
    sha256="4470fbed088c35dc20b78a39aaf4ae54fe81790c783b3264872a0224f437c31a",
    licence="MIT",
)
SYMPY = SourceDistribution(
    name="sympy",
    version="1.14.0",
    filename="sympy-1.14.0.tar.gz",
    sha256="d3d3fe8df1e5a0b42f0e7bdf50541697dbe7d23746e894990c030e2b05e72517",
    licence="BSD-3-Clause",
)
NETWORKX = SourceDistribution(
    name="networkx",
    version="3.5",
    filename="networkx-3.5.tar.gz",
    sha256="d4c6f9cf81f52d69230866796b82afbccdec3db7ae4fbd1b65ea750feed50037",
    licence="BSD-3-Clause",
)
CELERY = SourceDistribution(
    name="celery",
    version="5.5.3",
    filename="celery-5.5.3.tar.gz",
    sha256="6c972ae7968c2b5281227f01c3a3f984037d21c5129d07bf3550cc2afc6b10a5",
    licence="BSD-3-Clause",
)
SPHINX = SourceDistribution(
    name="sphinx",
    version="8.2.3",
    filename="sphinx-8.2.3.tar.gz",
    sha256="398ad29dee7f63a75888314e9424d40f52ce5a6a87ae88e7071e80af296ec348",
    licence="BSD-2-Clause",
)
PYTEST = SourceDistribution(
    name="pytest",
    version="8.4.2",
    filename="pytest-8.4.2.tar.gz",
    sha256="86c0d0b93306b961d58d62a4db4879f27fe25513d4b969df351abdddb3c30e01",
    licence="MIT",
)
SCRAPY = SourceDistribution(
    name="scrapy",
    version="2.13.3",
    filename="scrapy-2.13.3.tar.gz",
    sha256="bf17588c10e46a9d70c49a05380b749e3c7fba58204a367a5747ce6da2bd204d",
    licence="BSD-3-Clause",
)
TWISTED = SourceDistribution(
    name="twisted",
    version="24.11.0",
    filename="twisted-24.11.0.tar.gz",
    sha256="695d0556d5ec579dcc464d2856b634880ed1319f45b10d19043f2b57eb0115b5",
    licence="MIT",
)
BROTLI = SourceDistribution(
    name="brotli",
    version="1.1.0",
    filename="Brotli-1.1.0.tar.gz",
    sha256="81de08ac11bcb85841e440c13611c00b67d3bf82698314928d0b676362546724",
    licence="public domain (the Canterbury corpus's books, shipped as test data of an MIT package)",
)
SOURCES = (DJANGO, SQLALCHEMY, SYMPY, NETWORKX, CELERY, SPHINX, PYTEST, SCRAPY, TWISTED, BROTLI)


def _code(source: SourceDistribution, *include: str, exclude: tuple[str, ...] = ()) -> Selection:
    patterns = ("*/tests/*", "*/migrations/*", "*/locale/*", "*/benchmarks/*", *exclude)
    return Selection(domain=CODE, source=source, include=include, exclude=patterns, clean=cleaning.code_from_source)


def _docs(source: SourceDistribution, *include: str, exclude: tuple[str, ...] = ()) -> Selection:
    return Selection(domain=PROSE, source=source, include=include, exclude=exclude, clean=cleaning.prose_from_markup)


SELECTIONS = (
    _code(DJANGO, "*/django/*.py"),
    _code(SQLALCHEMY, "*/lib/sqlalchemy/*.py"),
    _code(SYMPY, "*/sympy/*.py", exclude=("*/rubi/*", "*/parsing/autolev/*", "*/_antlr/*")),
    _code(NETWORKX, "*/networkx/*.py"),
    _code(CELERY, "*/celery/*.py"),
    _code(TWISTED, "*/src/twisted/*.py", exclude=("*/test/*",)),
    _code(SPHINX, "*/sphinx/*.py", exclude=("*/sphinx/search/*",)),
    _docs(DJANGO, "*/docs/*.txt"),
    _docs(SQLALCHEMY, "*/doc/build/*.rst"),
    _docs(SYMPY, "*/doc/src/*.rst", "*/doc/src/*.md"),
    _docs(NETWORKX, "*/doc/*.rst"),
    _docs(SPHINX, "*/doc/*.rst", exclude=("*/doc/changes/*",)),
    _docs(PYTEST, "*/doc/en/*.rst"),
    _docs(SCRAPY, "*/docs/*.rst"),
    _docs(TWISTED, "*/docs/*.rst"),
    Selection(
        domain=PROSE,
        source=BROTLI,
        include=(
            "*/testdata/alice29.txt",
            "*/testdata/asyoulik.txt",
            "*/testdata/lcet10.txt",
            "*/testdata/plrabn12.txt",
        ),
        clean=cleaning.prose_from_book,
        book=True,
    ),
)


def _parts(text: str) -> list[str]:
    """Cut a book at blank lines into parts of about `_BOOK_PART_CHARACTERS`, so that some can be held out."""
    parts, current, size = [], [], 0
    for paragraph in text.split("\n\n"):
        current.append(paragraph)
        size += len(paragraph)
        if size >= _BOOK_PART_CHARACTERS:
            parts.append("\n\n".join(current) + "\n")
            current, size = [], 0
    return [*parts, "\n\n".join(current)] if current else parts


def read_selection(selection: Selection, archive: Path) -> Iterator[Document]:
    """Yield the cleaned documents of one selection, in the order of their names.

    Raises:
        ForestageError: if the archive cannot be read or none of its files match.
    """
    found = []
    try:
        with tarfile.open(archive, "r:*") as tar:
            for member in tar:
                name = member.name
                if not member.isfile() or not any(fnmatch.fnmatch(name, pattern) for pattern in selection.include):
                    continue
                if any(fnmatch.fnmatch(name, pattern) for pattern in selection.exclude):
                    continue
                file = tar.extractfile(member)
                if file is not None:
                    found.append((name, file.read().decode("utf-8", errors="replace")))
    except (tarfile.TarError, EOFError, zlib.error, OSError) as error:
        raise ForestageError(f"{archive}: cannot be read as an archive ({error}); delete it and run again") from error
    if not found:
        raise ForestageError(f"{archive}: no file matches {selection.include}; the version in corpus.py is another")
    maximum = _MAXIMUM_CODE_CHARACTERS if selection.domain == CODE else _MAXIMUM_PROSE_CHARACTERS
    for name, raw in sorted(found):
        text = selection.clean(raw)
        if selection.book:
            for number, part in enumerate(_parts(text)):
                yield Document(name=f"{name}#{number}", domain=selection.domain, text=part)
        elif _MINIMUM_CHARACTERS <= len(text) <= maximum:
            yield Document(name=name, domain=selection.domain, text=text)


def load_corpus(cache: Path | None = None, selections: tuple[Selection, ...] = SELECTIONS) -> list[Document]:
    """Fetch missing distributions, verify every hash and return all documents; a text that occurs twice is kept once.

    Raises:
        ForestageError: see `fetch` and `read_selection`.
    """
    documents: dict[tuple[str, str], Document] = {}
    for selection in selections:
        archive = fetch(selection.source, cache)
        for document in read_selection(selection, archive):
            documents.setdefault((document.domain, document.text), document)
    return list(documents.values())


def balanced_texts(documents: list[Document]) -> list[str]:
    """Return texts with about the same number of characters from each domain, so that a tokenizer favours none.

    From a larger domain, documents are taken in the order of their names' CRC-32 up to the smallest domain's size.
    """
    sizes = {domain: sum(len(d.text) for d in documents if d.domain == domain) for domain in DOMAINS}
    share = min(sizes.values())
    texts = []
    for domain in DOMAINS:
        taken = 0
        chosen = [document for document in documents if document.domain == domain]
        for document in sorted(chosen, key=lambda document: (zlib.crc32(document.name.encode()), document.name)):
            if taken >= share:
                break
            texts.append(document.text)
            taken += len(document.text)
    return texts
