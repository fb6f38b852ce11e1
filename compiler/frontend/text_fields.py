"""Text in a model must be UTF-8: protobuf hands damaged text over as bytes, and nothing after here expects that."""

from __future__ import annotations

from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from onnx import ModelProto

from fusible.errors import InvalidModel

__all__ = ["check_text"]


def check_text(model: ModelProto) -> None:
    """Raise InvalidModel for a text field that is not UTF-8. Tensor data are not looked at."""
    stack: list[Any] = [model]
    while stack:
        message = stack.pop()
        for field, value in message.ListFields():
            if field.type == FieldDescriptor.TYPE_STRING:
                _check(field.full_name, value)
            elif field.type == FieldDescriptor.TYPE_MESSAGE:
                stack.extend([value] if hasattr(value, "ListFields") else value)


def _check(field: str, value: Any) -> None:
    for text in [value] if isinstance(value, (str, bytes)) else value:
        if isinstance(text, bytes):
            raise InvalidModel(f"field {field} is not UTF-8 text: {text[:40]!r}")
