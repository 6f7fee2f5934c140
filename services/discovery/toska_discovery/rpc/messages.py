"""Between protobuf messages and our contracts, by the names of their fields: a name in both is the same thing.

Fields that a message does not set are left to the contract's defaults, and its validation names what is wrong.
"""

from collections.abc import Mapping
from datetime import datetime
from enum import Enum
from typing import Any, TypeVar

from google.protobuf.timestamp_pb2 import Timestamp
from pydantic import BaseModel, ValidationError
from toska_common.errors import InvalidInput
from toska_common.problem import field_problems

M = TypeVar("M", bound=BaseModel)

_HEALTH = ("", "passing", "warning", "critical")
"""Names of the enumeration, by number."""


def read(message: Any) -> dict[str, Any]:
    """The fields that are set, as what pydantic validates."""
    return {field.name: _read_value(field, value) for field, value in message.ListFields()}


def parse(model: type[M], message: Any, field: str) -> M:
    """The contract in a message.

    Raises:
        InvalidInput: Names each wrong field, below `field`.
    """
    try:
        return model.model_validate(read(message))
    except ValidationError as error:
        problems = [
            {**item, "field": field if item["field"] == "(root)" else f"{field}.{item['field']}"}
            for item in field_problems(error.errors())
        ]
        detail = "; ".join(f"{item['field']}: {item['reason']}" for item in problems)
        raise InvalidInput(detail, problems=problems) from error


def fill(message: Any, contract: BaseModel) -> Any:
    """Set every field of `message` that `contract` has something for; returns the message."""
    for field in message.DESCRIPTOR.fields:
        value = getattr(contract, field.name, None)
        if value is None:
            continue
        target = getattr(message, field.name)
        if isinstance(value, Mapping):
            target.update(value)  # pyright: ignore[reportUnknownArgumentType] - of strings or numbers
        elif isinstance(value, tuple):
            target.extend(value)  # pyright: ignore[reportUnknownArgumentType] - of strings
        elif isinstance(value, BaseModel):
            target.SetInParent()
            fill(target, value)
        elif isinstance(value, datetime):
            target.CopyFrom(_timestamp(value))
        else:
            setattr(message, field.name, _HEALTH.index(value.value) if isinstance(value, Enum) else value)
    return message


def health_of(number: int) -> str:
    """The word for a number of the enumeration; numbers that we do not know have none."""
    return _HEALTH[number] if 0 <= number < len(_HEALTH) else f"number {number}"


def _read_value(field: Any, value: Any) -> Any:
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        return dict(value)
    if field.is_repeated:
        return tuple(value)
    return read(value) if field.message_type is not None else value


def _timestamp(at: datetime) -> Timestamp:
    made = Timestamp()
    made.FromDatetime(at)
    return made
