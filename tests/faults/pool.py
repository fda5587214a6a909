"""One world for many tests, one after another, until its log is long."""

from pathlib import Path

from tests.faults.world import World


class Pool:
    """A world that healthy tests share: starting one takes as long as a fault."""

    def __init__(self) -> None:
        self._world: World | None = None

    def take(self, folder: Path, models: Path, *, kafka: bool, containers: bool) -> World:
        if self._world is not None and self._world.traffic.sent > 100_000:
            self.drop()
        if self._world is None:
            self._world = World(folder, models, kafka=kafka, containers=containers)
            try:
                self._world.start()
            except BaseException:
                self.drop()
                raise
        return self._world

    def drop(self) -> None:
        if self._world is not None:
            self._world.close()
        self._world = None
