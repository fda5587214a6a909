from collections.abc import Iterator
from pathlib import Path

import pytest

from infra.database import Database


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    """An empty one of either kind; SQLite's in a folder that was not there."""
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path}/new/folder/tidegate.db"
    else:
        url = request.getfixturevalue("postgresql").new_database()
    found = Database(url)
    found.migrate()
    yield found
    found.close()
