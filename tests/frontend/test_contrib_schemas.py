"""The schemas of ONNX Runtime's operators are those that ONNX Runtime itself has."""

from __future__ import annotations

from typing import Any

import pytest
from onnx import defs
from onnxruntime.capi import onnxruntime_pybind11_state as runtime

from fusible.compiler.frontend.contrib_schemas import _OPS, contrib_schema


def _described(schema: Any) -> dict[str, Any]:
    types = {t.type_param_str: sorted(t.allowed_type_strs) for t in schema.type_constraints}

    def of(parameter: Any) -> Any:
        text = parameter.type_str if isinstance(schema, defs.OpSchema) else parameter.typeStr
        return types.get(text, [text])

    return {
        "inputs": [(i.name, of(i), str(i.option).rpartition(".")[2]) for i in schema.inputs],
        "same": [[a.name for a in schema.inputs if of(a) == of(b)] for b in schema.inputs],
        "attributes": {n: (str(a.type).rpartition(".")[2], a.required) for n, a in schema.attributes.items()},
        "sizes": (schema.min_input, schema.max_input, schema.max_output),
    }


@pytest.mark.parametrize("name", _OPS)
def test_schemas_are_the_runtimes(name: str) -> None:
    (theirs,) = (s for s in runtime.get_all_operator_schema() if (s.domain, s.name) == ("com.microsoft", name))
    mine = contrib_schema("com.microsoft", name)
    assert mine is not None
    for part, wanted in _described(theirs).items():
        assert _described(mine)[part] == wanted


def test_others_have_none() -> None:
    assert contrib_schema("com.microsoft", "QOrderedGelu") is None
    assert contrib_schema("", "MatMulNBits") is None
