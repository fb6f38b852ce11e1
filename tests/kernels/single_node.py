"""Models of one node, for ONNX Runtime (optimisations disabled) as the oracle of a kernel."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from onnx import helper

from tests import oracle


def run_node(
    op: str,
    inputs: Sequence[np.ndarray | None],
    outputs: int = 1,
    *,
    opset: int = 22,
    domain: str = "",
    version: int = 1,
    **attributes: Any,
) -> list[Any]:
    """The outputs of a model of one node; None stands for an absent optional input, the last `outputs` are named.

    `version` is that of `domain` where it is not the standard's.
    """
    names = [f"x{i}" if x is not None else "" for i, x in enumerate(inputs)]
    given = {name: x for name, x in zip(names, inputs, strict=True) if x is not None}
    results = [f"y{i}" for i in range(outputs)]
    node = helper.make_node(op, names, results, domain=domain, **attributes)
    graph = helper.make_graph(
        [node],
        "single",
        [helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(x.dtype), x.shape) for n, x in given.items()],
        [helper.make_empty_tensor_value_info(name) for name in results],
    )
    imports = [helper.make_opsetid("", opset), *([helper.make_opsetid(domain, version)] if domain else [])]
    found = oracle.run(helper.make_model(graph, opset_imports=imports, ir_version=10), given)
    return [found[name] for name in results]
