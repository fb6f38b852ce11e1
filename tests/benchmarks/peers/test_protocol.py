"""Names of contestants, and peers that are not installed."""

from __future__ import annotations

import sys

import pytest

from fusible.benchmarks.peers.plain import PLAIN_LOOPS
from fusible.benchmarks.peers.protocol import PEERS, Contestant, PeerMissing, find_peer, parse_contestant
from fusible.errors import UsageError


@pytest.mark.parametrize(
    ("text", "expected", "label"),
    [
        ("onnxruntime", Contestant("onnxruntime"), "onnxruntime"),
        (" fusible:numpy ", Contestant("fusible", "numpy"), "fusible:numpy"),
        ("openvino*1.05", Contestant("openvino", "", 1.05), "openvino*1.05"),
        ("fusible:cpu:bf16", Contestant("fusible", "cpu:bf16"), "fusible:cpu:bf16"),
    ],
)
def test_contestants_are_read_and_named(text: str, expected: Contestant, label: str) -> None:
    assert parse_contestant(text) == expected
    assert expected.label == label
    assert parse_contestant(expected.label) == expected


def test_the_option_says_the_precision() -> None:
    texts = ("fusible", "fusible:cpu", "fusible:cpu:bf16", "openvino", "openvino:bf16")
    assert [parse_contestant(text).precision for text in texts] == ["fp32", "fp32", "bf16", "fp32", "bf16"]


@pytest.mark.parametrize("text", ["tvm", "", "onnxruntime*", "onnxruntime*fast", "onnxruntime*0.5", "onnxruntime*nan"])
def test_others_are_refused(text: str) -> None:
    with pytest.raises(UsageError):
        parse_contestant(text)


def test_a_peer_that_is_not_installed_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    monkeypatch.delitem(sys.modules, "fusible.benchmarks.peers.openvino_peer", raising=False)
    with pytest.raises(PeerMissing, match=r"openvino is not installed; pip install openvino"):
        find_peer("openvino")


def test_every_peer_has_an_entry_for_plain_loops() -> None:
    assert PLAIN_LOOPS.keys() == PEERS.keys()
