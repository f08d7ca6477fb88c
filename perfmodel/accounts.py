"""What an event loop's resources have done so far, and the checks on it."""

from collections.abc import Iterable

from perfmodel.tasks import Resource, Station


class Accounts:
    """The clock, the resources at work, and counts of tasks.

    Attributes:
        now_ps: the current time.
    """

    def __init__(self, resources: Iterable[Resource]) -> None:
        self.now_ps = 0
        self._stations: dict[str, Station] = {}
        for resource in resources:
            if resource.name in self._stations:
                raise ValueError(f"resource {resource.name} is named twice")
            self._stations[resource.name] = Station(resource)
        self._numbers = 0  # tasks submitted
        self._finished = 0
        self._cancelled = 0
        self._finished_bytes = 0
        self._abandoned_bytes = 0

    @property
    def resource_names(self) -> tuple[str, ...]:
        """Names of the resources, in the order of declaration."""
        return tuple(self._stations)

    def busy_ps(self, resource: str) -> int:
        """Time the resource has worked so far, summed over its servers and with services still in progress."""
        station = self._stations[resource]
        busy_ps = station.busy_ps
        for task in station.running:
            passed_ps = self.now_ps - task.since_ps
            if not task.size_bytes:
                passed_ps = min(passed_ps, task.busy_ps[task.queue.stations.index(station)])
            busy_ps += passed_ps
        return busy_ps

    def moved_bytes(self, resource: str) -> int:
        """Bytes that the resource's finished services have moved."""
        return self._stations[resource].moved_bytes

    def check(self) -> None:
        """Check what must hold once no event is left.

        Raises:
            AssertionError: a task neither finished nor was cancelled, a resource worked longer than the makespan, or
                the bytes of the resources are not those of the tasks.
        """
        assert self._finished + self._cancelled == self._numbers, (
            f"{self._numbers} tasks submitted, {self._finished} finished, {self._cancelled} cancelled"
        )
        for name, station in self._stations.items():
            servers = station.resource.servers
            assert station.free == servers, f"{name} is still held"
            assert station.busy_ps <= servers * self.now_ps, f"{name} was busy longer than the makespan"
        moved = sum(station.moved_bytes for station in self._stations.values())
        assert moved == self._finished_bytes + self._abandoned_bytes, "bytes moved are not those of the tasks"
