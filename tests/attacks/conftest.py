"""A mesh behind a gateway, and what is left of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from attacking import Fortress

WITHOUT_PROCESSES = ("test_fuzz.py", "test_limits.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents and item.path.name not in WITHOUT_PROCESSES:
            item.add_marker(pytest.mark.slow)


@pytest.fixture(scope="session")
def standing() -> Iterator[Fortress]:
    """One mesh for all that leave it as it was."""
    found = Fortress()
    yield found
    found.close()


@pytest.fixture
def fortress(standing: Fortress) -> Iterator[Fortress]:
    """That mesh; after each attack its gateway is the same process, serves, and has said nothing unexpected."""
    pid, said = standing.gateway_pid(), len(standing.logged())
    yield standing
    assert standing.gateway_pid() == pid
    with standing.connected() as mesh:
        assert mesh["k0"].execute("6 * 7").result == 42
    assert "Traceback" not in standing.logged(said)


@pytest.fixture
def fortress_of() -> Iterator[Callable[..., Fortress]]:
    """Make meshes that an attack may change."""
    made: list[Fortress] = []

    def make(*serve: str, **environ: str) -> Fortress:
        made.append(Fortress(*serve, **environ))
        return made[-1]

    yield make
    for one in made:
        one.close()
