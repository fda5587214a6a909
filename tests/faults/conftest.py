import shutil
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from models.registry import ModelRegistry
from tests.deployment import CONTAINERS, KAFKA
from tests.faults.pool import Pool
from tests.faults.world import World

HAS_JAVA = bool(shutil.which("java") and shutil.which("mvn"))


def require_kafka() -> None:
    """Skip where Apache Kafka cannot run in the way that was asked for."""
    if CONTAINERS:
        from tests.faults.containers import engine_answers

        if not engine_answers():
            pytest.skip("TIDEGATE_TEST_BROKER=containers: no container engine answers")
    elif not HAS_JAVA:
        pytest.skip("needs Java 17 and Maven")


@pytest.fixture(scope="session")
def pool() -> Iterator[Pool]:
    pool = Pool()
    yield pool
    pool.drop()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Any:
    report = yield
    if report.when == "call":
        item.stash[_FAILED] = report.failed
    return report


_FAILED = pytest.StashKey[bool]()


@pytest.fixture
def short(request: pytest.FixtureRequest) -> bool:
    """Whether only the short matrix runs: fewer faults of each kind."""
    return "short" in request.config.getoption("-m")


@pytest.fixture
def world(
    request: pytest.FixtureRequest,
    pool: Pool,
    registry: ModelRegistry,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[World]:
    """A world as it was left by the test before, which found it right; on the embedded broker a new one."""
    if KAFKA:
        require_kafka()
    else:
        # That broker lists killed members for ever: twice nobody could join after all others had left.
        pool.drop()
    yield pool.take(tmp_path_factory.mktemp("world"), registry._root, kafka=KAFKA, containers=CONTAINERS)
    if request.node.stash.get(_FAILED, True):
        pool.drop()


@pytest.fixture
def new_world(
    registry: ModelRegistry, tmp_path_factory: pytest.TempPathFactory, pool: Pool
) -> Iterator[Callable[..., World]]:
    """Worlds of one test, each ended behind it. The shared one is ended before: the machine is small."""
    if not KAFKA:
        pytest.skip("runs on Apache Kafka: TIDEGATE_TEST_BROKER=kafka")
    require_kafka()
    pool.drop()
    made: list[World] = []

    def make(**options: Any) -> World:
        made.append(World(tmp_path_factory.mktemp("world"), registry._root, containers=CONTAINERS, **options))
        made[-1].start()
        return made[-1]

    yield make
    for world in made:
        world.close()
