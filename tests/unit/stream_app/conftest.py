from collections.abc import Iterator

import pytest
from pytest_socket import disable_socket, enable_socket

from models.model_set import Models
from tests.streaming import Stream


@pytest.fixture(autouse=True)
def _no_sockets() -> Iterator[None]:
    # The event loop's own pair is a Unix one.
    disable_socket(allow_unix_socket=True)
    yield
    enable_socket()


@pytest.fixture
def stream(models: Models) -> Stream:
    return Stream(models)
