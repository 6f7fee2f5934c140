"""Whether a proposed version is taken. Pure.

A version once taken never changes: its events are out there. What a schema says for people alone may: a title, a
description. A new one must be compatible, as its topic asks, with the
versions before and after it; those that its readers bring up to date by code (`upcasts_from`) need not be readable.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, cast

from pydantic_core import to_json
from toska_common.contracts.event_schemas import SchemaProposal, SchemaVersion, TopicSchema
from toska_common.events.compatibility import Compatibility, find_incompatibilities
from toska_common.events.errors import EventRefused

DEFAULT = Compatibility.BACKWARD
"""Readers are upgraded before publishers; what is kept can be replayed into the newest of them."""
MAX_VERSIONS = 200
MAX_BYTES = 64 * 1024
"""Most bytes of a schema; a registry's value holds 512 KiB."""


_FOR_PEOPLE = frozenset({"title", "description", "examples", "deprecated", "readOnly", "writeOnly", "$comment"})
_NAMED = frozenset({"properties", "patternProperties", "dependentSchemas", "$defs", "definitions"})
_LISTED = frozenset({"allOf", "anyOf", "oneOf", "prefixItems"})
_SETS = frozenset({"required", "enum"})
_VALUES = frozenset({"const", "default"})
"""Keywords whose values are data, and no schemas."""


@dataclass(frozen=True, slots=True)
class Who:
    """Who proposes, and when."""

    service: str
    at: datetime


def judge(topic: str, known: TopicSchema | None, proposal: SchemaProposal, who: Who) -> TopicSchema:
    """The topic's schema with the proposal in it; itself if that was taken already.

    Raises:
        EventRefused: The version is another one already, or is not compatible; `problems` says where.
    """
    if len(to_json(proposal.payload)) > MAX_BYTES:
        raise _refused(topic, proposal, [f"the schema has more than {MAX_BYTES} bytes"])
    if known is None:
        return TopicSchema(
            topic=topic, compatibility=proposal.compatibility or DEFAULT, versions=(_version(proposal, who),)
        )
    for version in known.versions:
        if version.version == proposal.version:
            if data_of(version.payload) == data_of(proposal.payload):
                return known
            by = f" by {version.service}" if version.service else ""
            raise _refused(
                topic,
                proposal,
                [f"this version was taken with another schema{by}; give the new one a new number"],
            )
    if len(known.versions) >= MAX_VERSIONS:
        raise _refused(topic, proposal, [f"the topic has {MAX_VERSIONS} versions already"])
    problems = find_problems(known, proposal)
    if problems:
        raise _refused(topic, proposal, problems)
    versions = sorted([*known.versions, _version(proposal, who)], key=lambda item: item.version)
    return known.model_copy(update={"versions": tuple(versions)})


def data_of(schema: Any) -> Any:
    """A schema without what says nothing about the data: titles, descriptions, order (JSON Schema 2020-12 §9)."""
    if not isinstance(schema, Mapping):
        return schema
    found: dict[str, Any] = {}
    for keyword, value in cast("Mapping[str, Any]", schema).items():
        if keyword in _NAMED and isinstance(value, Mapping):  # whose keys are properties' names, and no keywords
            named = cast("Mapping[str, Any]", value)
            found[keyword] = {name: data_of(inner) for name, inner in named.items()}
        elif keyword in _LISTED and isinstance(value, list):
            found[keyword] = [data_of(inner) for inner in cast("list[Any]", value)]
        elif keyword in _SETS and isinstance(value, list):
            found[keyword] = sorted(map(repr, cast("list[Any]", value)))
        elif keyword not in _FOR_PEOPLE:
            found[keyword] = value if keyword in _VALUES else data_of(value)
    return found


def find_problems(known: TopicSchema, proposal: SchemaProposal) -> list[str]:
    """Why the proposal is not compatible with its neighbours; empty if it is."""
    problems: list[str] = []
    before = [item for item in known.versions if item.version < proposal.version]
    after = [item for item in known.versions if item.version > proposal.version]
    if before:
        previous = max(before, key=lambda item: item.version)
        mode = _mode(known.compatibility, upcast=previous.version in proposal.upcasts_from)
        found = find_incompatibilities(previous.payload, proposal.payload, mode)
        problems += [f"version {previous.version}: {problem}" for problem in found]
    if after:
        following = min(after, key=lambda item: item.version)
        mode = _mode(known.compatibility, upcast=proposal.version in following.upcasts_from)
        found = find_incompatibilities(proposal.payload, following.payload, mode)
        problems += [f"version {following.version}: {problem}" for problem in found]
    return problems


def _mode(asked: Compatibility, *, upcast: bool) -> Compatibility:
    if not upcast:
        return asked
    # Code reads the old data; nothing but the schema lets old readers read new data.
    return Compatibility.FORWARD if asked in (Compatibility.FORWARD, Compatibility.FULL) else Compatibility.NONE


def _version(proposal: SchemaProposal, who: Who) -> SchemaVersion:
    return SchemaVersion(
        version=proposal.version,
        schema=proposal.payload,
        upcasts_from=proposal.upcasts_from,
        service=who.service,
        registered_at=who.at,
    )


def _refused(topic: str, proposal: SchemaProposal, reasons: list[str]) -> EventRefused:
    return EventRefused(
        f"version {proposal.version} of {topic} is not taken: {reasons[0]}",
        topic=topic,
        version=proposal.version,
        problems=[{"field": "body.schema", "reason": reason} for reason in reasons],
    )
