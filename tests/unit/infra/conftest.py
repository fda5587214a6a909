from collections.abc import Iterator
from pathlib import Path

import pytest

from infra.database import Database


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    """An empty one, in a folder that was not there."""
    found = Database(f"sqlite:///{tmp_path}/new/folder/tidegate.db")
    found.migrate()
    yield found
    found.close()
