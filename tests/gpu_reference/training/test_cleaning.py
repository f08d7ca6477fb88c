import pytest

from gpu_reference.training.cleaning import code_from_source, prose_from_book, prose_from_markup

MARKUP = """\
=====
Title
=====

.. module:: thing
   :synopsis: Not a sentence of the text that anyone would read.

Django's :class:`~django.test.TestCase` wraps ``each`` test in *one* transaction, as :ref:`the docs <x>` and
`a link <https://example.org/a>`_ say. Here is an example of it, which is long enough::

    def code_that_must_go(x):
        return x

After the code there is another paragraph, which has words enough to be kept.

.. code-block:: python

    more_code = "that must go, although it has very many words in its string, does it not."

.. note::

    A note is prose, and so it is kept with all of its words in their places.

>>> an_example_session("that must go although it has very many words in it, too, does it not")
{'and': 'its answer'}

+-----+-----+
| a cell of a table that has enough words to be kept, if it were not a cell. |
+-----+-----+

:param x: A field of a list that has enough words to be kept, if it were not one.

* The first item of a list is long enough to be kept as a paragraph of its own.
* Too short.

```python
fenced = "code that must go, although it has very many words in its string, as above."
```
"""


def test_markup_becomes_running_prose() -> None:
    assert prose_from_markup(MARKUP).split("\n\n") == [
        "Django's django.test.TestCase wraps each test in one transaction, as the docs and a link say. Here is an "
        "example of it, which is long enough:",
        "After the code there is another paragraph, which has words enough to be kept.",
        "A note is prose, and so it is kept with all of its words in their places.",
        "The first item of a list is long enough to be kept as a paragraph of its own.\n",
    ]


@pytest.mark.parametrize("function", [prose_from_markup, prose_from_book, code_from_source])
def test_nothing_gives_nothing(function) -> None:  # type: ignore[no-untyped-def]
    assert function("") == function("\n\n") == ""


def test_books_are_unwrapped_and_verse_keeps_its_lines() -> None:
    verse = "Of Man's first\nAnd of all our\nWoe, with loss of\n"
    text = f"CHAPTER I\n\n  Alice was beginning to get\nvery tired of sitting.\n\n{verse}"
    assert prose_from_book(text) == f"Alice was beginning to get very tired of sitting.\n\n{verse}"


def test_code_loses_its_licence_comment_and_nothing_else() -> None:
    text = "#!/usr/bin/env python\n# Copyright.\n\nimport os\n\n\n\n\n\n\ndef f():\n\treturn os  \n"
    assert code_from_source(text) == "import os\n\n\ndef f():\n    return os\n"
