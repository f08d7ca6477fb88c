"""Sequences of a recording that has forward passes but names no request, as llama.cpp's recordings do."""

from catalog.errors import ForestageError


class ForwardPasses:
    """Tells where a sequence begins, pass by pass, of one request at a time.

    A prompt is evaluated in pieces of one size, the last of which may be smaller; then every generated token in a pass
    of its own. So a pass of several tokens begins a sequence after a pass of one token, and continues the prompt after
    a full piece. Anything else is a batch, or several prompts without an answer between them, and refused.
    """

    def __init__(self) -> None:
        self._piece = 0
        self._before = 0

    def begins(self, tokens: int, place: str) -> bool:
        """Whether a pass of ``tokens`` begins a sequence.

        Args:
            tokens: of the pass.
            place: where it stands, for errors.

        Raises:
            ForestageError: if the passes cannot be of one request at a time.
        """
        first = self._before == 0
        begins = first or (tokens > 1 and self._before == 1)
        if not begins and tokens > 1 and (self._before < self._piece or tokens > self._piece):
            raise ForestageError(
                f"{place}: a pass of {tokens} tokens after one of {self._before} is neither the rest of a prompt nor "
                "the first of another; import the recording of each prompt alone"
            )
        if begins:
            self._piece = tokens
        self._before = tokens
        return begins

    def end(self) -> None:
        """What follows is another recording."""
        self._piece = self._before = 0
