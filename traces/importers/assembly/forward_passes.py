"""Find the sequences in a recording of forward passes that does not name requests, such as llama.cpp's."""

from catalog.errors import ForestageError


class ForwardPasses:
    """Determines, pass by pass, where a sequence begins; requests must run one at a time.

    A prompt is evaluated in pieces of equal size (the last may be smaller), then every generated token in its own pass.
    So a pass of several tokens begins a sequence if it follows a pass of one token, and continues the prompt if it
    follows a full piece. Anything else is a batch, or several prompts without an answer between them, and is refused.
    """

    def __init__(self) -> None:
        self._piece = 0
        self._before = 0

    def begins(self, tokens: int, place: str) -> bool:
        """Whether a pass of ``tokens`` begins a sequence.

        Args:
            tokens: number of tokens in the pass.
            place: its place in the file, for errors.

        Raises:
            ForestageError: if requests cannot have run one at a time.
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
        """End the recording; the next pass is of another one."""
        self._piece = self._before = 0
