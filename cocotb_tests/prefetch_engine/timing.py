"""The transfers' times as the engine's twin asks for them."""

from predictor.engine.limits import PrefetchEngineLimits
from predictor.engine.settings import PrefetchEngineSettings
from rtl.prefetch.dma.link import product_bits
from rtl.prefetch.payloads import stager_shape
from staging.transfer.limits import PAGE_BYTES, TransferSettings
from staging.transfer.timing import MemoryTiming, ServiceTiming


class LinkTimes:
    """Times of a service, whichever expert moves whereto: they must be the same for all.

    Args:
        limits, settings: of the engine.
        memory: at both ends.

    Raises:
        ValueError: if the times depend on where in a page an expert or its place begins; align them otherwise.
    """

    def __init__(self, limits: PrefetchEngineLimits, settings: PrefetchEngineSettings, memory: MemoryTiming) -> None:
        link = settings.link
        self._service = ServiceTiming(
            limits.link,
            memory,
            TransferSettings(outstanding=link.outstanding, share=link.share),
            product_bits(stager_shape(limits)) + 2,
            link.expert_bytes,
            link.chunk_bytes,
        )
        self.chunks = self._service.chunks
        self._source, self._destination = link.expert_base, link.staging_base
        sources = {(link.expert_base + n * link.expert_stride) % PAGE_BYTES for n in range(PAGE_BYTES)}
        places = {(link.staging_base + n * link.staging_stride) % PAGE_BYTES for n in range(PAGE_BYTES)}
        times = {
            tuple(self._service.passed(source, place, 0, chunk + 1) for chunk in range(self.chunks))
            for source in sources
            for place in places
        }
        if len(times) > 1:
            raise ValueError("link times: they depend on the addresses; give strides that are whole pages")

    def issued(self, first: int, chunk: int) -> int:
        """See ``predictor.engine.timing.LinkTiming``."""
        return self._service.issued(self._source, self._destination, first, chunk)

    def passed(self, first: int, chunks: int) -> int:
        """See ``predictor.engine.timing.LinkTiming``."""
        return self._service.passed(self._source, self._destination, first, chunks)
