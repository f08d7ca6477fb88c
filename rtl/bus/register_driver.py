"""Software's side of any register file: what every driver does alike."""

from collections.abc import Awaitable, Callable

from catalog.errors import ForestageError
from rtl.bus.register_map import DATA_BITS, DATA_BYTES, AddressMap


class RegisterDriver:
    """Reads and writes the registers of a map.

    Args:
        address_map: Of the hardware.
        name: Of the hardware, for errors.
        known: What the driver knows: the version, and of what.
        read: Reads a word at an address.
        write: Writes a word at an address; it raises where the hardware refuses.
    """

    def __init__(
        self,
        address_map: AddressMap,
        *,
        name: str,
        known: str,
        read: Callable[[int], Awaitable[int]],
        write: Callable[[int, int], Awaitable[None]],
    ) -> None:
        self._map, self._name, self._known = address_map, name, known
        self._read, self._write = read, write

    async def identify(self) -> None:
        """Check that there is the hardware that the driver knows.

        Raises:
            ForestageError: there is another.
        """
        for register in self._map.registers:
            if register.constant and (found := await self._read(register.offset)) != register.reset:
                raise ForestageError(
                    f"{self._name}: {register.name} is {found:#x}, not {register.reset:#x}; it is not {self._known}"
                )

    async def _counter(self, offset: int) -> int:
        """A counter, whose low word is at ``offset``; its two words belong together."""
        low = await self._read(offset)
        return low | await self._read(offset + DATA_BYTES) << DATA_BITS
