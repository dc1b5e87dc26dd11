import openai
import pytest

from server import Server


@pytest.fixture(scope="session")
def demo():
    """The demo model, as `weir` alone serves it."""
    server = Server()
    yield server
    assert server.stop() == 0, "SIGTERM drains and exits with 0"


@pytest.fixture(scope="session")
def client(demo):
    return openai.OpenAI(base_url=demo.base_url, api_key="none", max_retries=0)


@pytest.fixture
def start():
    """Starts servers with given flags; they are stopped after the test."""
    servers = []

    def start_server(*flags: str) -> Server:
        servers.append(Server(*flags))
        return servers[-1]

    yield start_server
    for server in servers:
        server.stop()
