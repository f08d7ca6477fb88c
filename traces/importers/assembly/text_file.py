"""Read text files, plain or gzipped, in bounded memory."""

import codecs
import gzip
import io
import os
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, TextIO, cast

from catalog.errors import ForestageError
from traces.importers.report import Report

GZIP_MAGIC = b"\x1f\x8b"

UTF_16_MARKS = (b"\xff\xfe", b"\xfe\xff")
"""First bytes of a UTF-16 text, which PowerShell's ``>`` writes."""

MAX_LINE_CHARACTERS = 64 << 20
"""Most characters of a line, more than any format writes, so that a file without line ends is not read whole."""


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Turn errors of reading ``path`` into a ``ForestageError`` of one line."""
    try:
        yield
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise ForestageError(f"{path}: damaged or truncated gzip file ({error}); fetch it again") from error
    except UnicodeDecodeError as error:
        raise ForestageError(f"{path}: not a UTF-8 text ({error.reason})") from error
    except OSError as error:
        raise ForestageError(f"{path}: cannot read ({error.strerror or error})") from error


@contextmanager
def open_text(path: Path) -> Iterator[tuple[TextIO, BinaryIO]]:
    """``path`` as UTF-8 text (without a byte-order mark), and the underlying bytes, whose position shows the progress.

    Raises:
        ForestageError: if it cannot be read, is not UTF-8 text or is a damaged gzip file; also while it is being read.
    """
    with readable(path), path.open("rb") as raw:
        start = raw.read(2)
        raw.seek(0)
        if start in UTF_16_MARKS:
            raise ForestageError(f"{path}: is text in UTF-16; save it as UTF-8")
        data = cast(BinaryIO, gzip.GzipFile(fileobj=raw)) if start == GZIP_MAGIC else raw
        with io.TextIOWrapper(data, encoding="utf-8-sig", newline=None) as text:
            yield text, raw


def read_lines(path: Path, report: Report) -> Iterator[tuple[int, str]]:
    """The lines of ``path``, numbered from 1, without their ends; progress in bytes of the file.

    Raises:
        ForestageError: as ``open_text``, and for a line longer than ``MAX_LINE_CHARACTERS``.
    """
    with open_text(path) as (text, raw):
        total = os.fstat(raw.fileno()).st_size
        number = 0
        while line := text.readline(MAX_LINE_CHARACTERS):
            number += 1
            if len(line) == MAX_LINE_CHARACTERS and not line.endswith("\n"):
                raise ForestageError(f"{path}: line {number}: longer than {MAX_LINE_CHARACTERS} characters")
            if number % 4096 == 1:
                report.progress(raw.tell(), total)
            yield number, line.rstrip("\n")
        report.progress(total, total)


def starting_bytes(path: Path, count: int) -> bytes:
    """The first ``count`` bytes of ``path``, unzipped if it is gzipped; fewer if it is shorter.

    A UTF-8 byte-order mark is left out, so that formats are recognised by what follows it.

    Raises:
        ForestageError: if the file cannot be read.
    """
    with readable(path), path.open("rb") as file:
        start = file.read(count)
    if start.startswith(GZIP_MAGIC):
        try:
            start = zlib.decompressobj(wbits=31).decompress(start, count)
        except zlib.error:
            return start
    return start.removeprefix(codecs.BOM_UTF8)
