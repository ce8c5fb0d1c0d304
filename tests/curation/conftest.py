"""A local server for the tests of voices and of written sentences."""

from collections.abc import Iterator

import pytest
from json_server import JsonServer


@pytest.fixture
def json_server() -> Iterator[JsonServer]:
    server = JsonServer()
    yield server
    server.close()
