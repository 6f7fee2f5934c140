"""Typed payloads: pydantic models that know their topic and version, and how older versions become the newest.

class OrderPlaced(EventPayload, topic="orders.order.placed", version=2):
    id: str
    currency: str

@OrderPlaced.upcast(1)
def _(data: dict[str, Any]) -> dict[str, Any]:
    return {**data, "currency": "EUR"}
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, ClassVar, TypeVar, cast

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import from_json

from toska_common.events.errors import InvalidPayload
from toska_common.events.event import Event
from toska_common.events.topics import check_topic

Data = dict[str, Any]
Upcaster = Callable[[Data], Data]

P = TypeVar("P", bound="EventPayload")

MAX_PROBLEMS = 20


class EventPayload(BaseModel):
    """The data of one topic's events, in one version; fields that a newer publisher added are ignored."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    event_topic: ClassVar[str] = ""
    event_version: ClassVar[int] = 1
    event_upcasters: ClassVar[dict[int, Upcaster]] = {}

    def __init_subclass__(cls, *, topic: str = "", version: int = 1, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if not topic:
            return  # a base of payloads
        if version < 1:
            raise ValueError(f"{cls.__name__}: versions count from 1")
        cls.event_topic, cls.event_version, cls.event_upcasters = check_topic(topic), version, {}

    @classmethod
    def upcast(cls, version: int) -> Callable[[Upcaster], Upcaster]:
        """Register what makes data of `version` into those of the next one.

        Raises:
            ValueError: This version needs none, or has one.
        """
        if not 1 <= version < cls.event_version or version in cls.event_upcasters:
            raise ValueError(f"{cls.__name__}: no upcaster is wanted from version {version}, or there is one")

        def register(upcaster: Upcaster) -> Upcaster:
            cls.event_upcasters[version] = upcaster
            return upcaster

        return register


class PayloadTypes:
    """The payload types that a process knows, by topic.

    Raises:
        ValueError: Two of them claim one topic, or one has no topic.
    """

    def __init__(self, types: Iterable[type[EventPayload]] = ()) -> None:
        self._by_topic: dict[str, type[EventPayload]] = {}
        for payload_type in types:
            self.add(payload_type)

    def __iter__(self) -> Iterator[type[EventPayload]]:
        return iter(self._by_topic.values())

    def add(self, payload_type: type[EventPayload]) -> None:
        """Know one more."""
        topic = payload_type.event_topic
        if not topic:
            raise ValueError(
                f"{payload_type.__name__} has no topic: class {payload_type.__name__}(EventPayload, topic=…)"
            )
        if self._by_topic.setdefault(topic, payload_type) is not payload_type:
            raise ValueError(f"{payload_type.__name__} and {self._by_topic[topic].__name__} both claim {topic!r}")

    def read(self, event: Event, *, topic: str = "") -> Any:
        """The event's data: the newest version of its topic's type; JSON, bytes or nothing if nobody declared one.

        Args:
            topic: Whose type it is, where that is not the event's own topic (replies).

        Raises:
            InvalidPayload: The data are not JSON, or not what the type says.
        """
        payload_type = self._by_topic.get(topic or event.topic)
        if payload_type is None and not event.data:
            return None
        if payload_type is None:
            return parse_json(event.data) if "json" in event.content_type else event.data
        return read_payload(payload_type, event)


def read_payload(payload_type: type[P], event: Event) -> P:
    """The event's data as `payload_type`, brought up from older versions.

    Raises:
        InvalidPayload: They are not.
    """
    data = parse_json(event.data)
    if event.version < payload_type.event_version:
        data = _upcast(payload_type, data, event.version)
    try:
        return payload_type.model_validate(data)
    except ValidationError as error:
        raise invalid_payload(payload_type.__name__, error) from error


def parse_json(data: bytes) -> Any:
    """Read JSON.

    Raises:
        InvalidPayload: It is none.
    """
    try:
        return from_json(data, allow_inf_nan=False)
    except ValueError as error:
        raise InvalidPayload(
            f"the data are not JSON: {error}", problems=[{"field": "", "reason": str(error)}]
        ) from error


def invalid_payload(name: str, error: ValidationError) -> InvalidPayload:
    """What pydantic found, without the values: those may be secrets."""
    found = error.errors(include_url=False, include_input=False, include_context=False)[:MAX_PROBLEMS]
    problems = [{"field": ".".join(str(part) for part in item["loc"]), "reason": item["msg"]} for item in found]
    fields = ", ".join(f"{problem['field'] or 'the data'}: {problem['reason']}" for problem in problems[:3])
    return InvalidPayload(f"the data are no {name}: {fields}", problems=problems)


def _upcast(payload_type: type[EventPayload], data: Any, version: int) -> Data:
    if not isinstance(data, Mapping):
        raise InvalidPayload("the data are no JSON object", problems=[{"field": "", "reason": "is no JSON object"}])
    current = dict(cast("Mapping[str, Any]", data))
    for step in range(version, payload_type.event_version):
        upcaster = payload_type.event_upcasters.get(step)
        if upcaster is None:
            continue  # the next version only added fields that have defaults
        try:
            current = upcaster(current)
        except Exception as error:
            reason = f"cannot be brought from version {step} to {step + 1}: {type(error).__name__}"
            raise InvalidPayload(f"the data {reason}", problems=[{"field": "", "reason": reason}]) from error
    return current
