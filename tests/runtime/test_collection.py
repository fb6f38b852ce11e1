"""Collection is put off for the time of a block, and then as it was."""

from __future__ import annotations

import gc

import pytest

from fusible.runtime.collection import collection_put_off


@pytest.mark.parametrize("enabled", [True, False])
def test_it_is_off_within_and_then_as_before(enabled: bool) -> None:
    before = gc.isenabled()
    try:
        (gc.enable if enabled else gc.disable)()
        with collection_put_off():
            assert not gc.isenabled()
        assert gc.isenabled() is enabled
        with pytest.raises(KeyError), collection_put_off():
            raise KeyError
        assert gc.isenabled() is enabled
    finally:
        (gc.enable if before else gc.disable)()
