"""Settings for all tests: property tests have no deadline and, in CI, no chance either; some suites run on demand."""

from __future__ import annotations

import os

import pytest
from hypothesis import settings

settings.register_profile("default", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True, print_blob=True)
settings.load_profile("ci" if os.environ.get("CI") else "default")

# Tests with such a marker need more than the extra `dev` installs; without the option they are deselected.
ON_DEMAND = {"--bench": "bench", "--browser": "browser", "--scan": "scan"}


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add an option for each suite that runs on demand."""
    for option, marker in ON_DEMAND.items():
        parser.addoption(option, action="store_true", help=f"run the tests marked {marker!r} as well")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselect the suites that were not asked for."""
    unwanted = [marker for option, marker in ON_DEMAND.items() if not config.getoption(option)]
    kept, deselected = [], []
    for item in items:
        (deselected if any(item.get_closest_marker(marker) for marker in unwanted) else kept).append(item)
    if deselected:
        config.hook.pytest_deselected(items=deselected)
        items[:] = kept
