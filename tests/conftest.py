"""What all tests share."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator

import pytest
import torch

from elth import plugins

# Whole runs and the tests of it look at the arithmetic of this machine; the others make many small
# networks, each of which would be looked at.
os.environ.setdefault("ELTH_ARITHMETIC", "off")

# A shell starts what is in the background with Ctrl-C ignored, and so is then what tests start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Pass over what needs more GPUs than there are."""
    have = torch.cuda.device_count()
    for item in items:
        marker = item.get_closest_marker("gpu")
        needs = (marker.args[0] if marker.args else 1) if marker is not None else 0
        if needs > have:
            reason = f"needs {needs} GPUs" if needs > 1 else "needs a GPU"
            item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(autouse=True)
def no_plugin_stays_listed() -> Iterator[None]:
    """What a test lists of code from outside is not listed in the next one."""
    listed, path = dict(plugins._in_use), [*sys.path]
    yield
    if plugins._in_use != listed:
        plugins._in_use.clear()
        plugins._in_use.update(listed)
        sys.path[:] = path
        plugins.sources.cache_clear()
