"""Schemas as they are kept: in the registry's keys, one a topic, so that every events service of the mesh has the same.

The registry is the one store that both kinds of mesh have, and replicates on a cluster. Writers compare and set.
"""

from collections.abc import Callable

from pydantic import ValidationError
from toska_common.clients.consul import ConsulClient
from toska_common.clients.consul_records import KVPair
from toska_common.contracts.event_schemas import SchemaProposal, TopicSchema
from toska_common.errors import Conflict, MeshError, NotFound
from toska_common.events.compatibility import Compatibility
from toska_common.events.topics import check_topic

from toska_events.schemas.judging import Who, judge

PREFIX = "toska/events/schemas/"
_TRIES = 8
MAX_VALUE_BYTES = 512 * 1024


class UnknownSchema(NotFound):
    """Nobody proposed a schema for this topic."""

    code, title = "unknown-schema", "Unknown schema"


class UnreadableSchema(MeshError):
    """What is stored under the topic's key is not a schema of this release."""

    code, title = "unreadable-schema", "Unreadable schema"


class SchemaBook:
    """The schemas of all topics."""

    def __init__(self, consul: ConsulClient) -> None:
        self._consul = consul

    async def list_all(self) -> list[TopicSchema]:
        """Those of all topics, by topic."""
        pairs, _ = await self._consul.kv_list(PREFIX)
        return [_read(pair) for pair in pairs]

    async def get(self, topic: str) -> TopicSchema:
        """One topic's.

        Raises:
            UnknownSchema: It has none.
        """
        pair, _ = await self._consul.kv_get(PREFIX + check_topic(topic))
        if pair is None:
            raise UnknownSchema(f"nobody proposed a schema for {topic}", topic=topic)
        return _read(pair)

    async def propose(self, topic: str, proposal: SchemaProposal, who: Who) -> TopicSchema:
        """Take a version, or say that it was taken already.

        Raises:
            EventRefused: It may not follow what is there.
        """
        return await self._change(topic, lambda known: judge(topic, known, proposal, who))

    async def try_out(self, topic: str, proposal: SchemaProposal, who: Who) -> TopicSchema:
        """What `propose` would come to; raises as it does, and changes nothing."""
        pair, _ = await self._consul.kv_get(PREFIX + check_topic(topic))
        return judge(topic, None if pair is None else _read(pair), proposal, who)

    async def set_compatibility(self, topic: str, compatibility: Compatibility) -> TopicSchema:
        """Ask something else of the next versions; those that are there stay.

        Raises:
            UnknownSchema: The topic has none.
        """

        def change(known: TopicSchema | None) -> TopicSchema:
            if known is None:
                raise UnknownSchema(f"nobody proposed a schema for {topic}", topic=topic)
            return known.model_copy(update={"compatibility": compatibility})

        return await self._change(topic, change)

    async def delete(self, topic: str) -> None:
        """Forget a topic's schema.

        Raises:
            UnknownSchema: It has none.
        """
        await self.get(topic)
        await self._consul.kv_delete(PREFIX + topic)

    async def _change(self, topic: str, change: Callable[[TopicSchema | None], TopicSchema]) -> TopicSchema:
        key = PREFIX + check_topic(topic)
        for _ in range(_TRIES):
            pair, _ = await self._consul.kv_get(key, consistent=True)
            known = None if pair is None else _read(pair)
            changed = change(known)
            if changed == known:
                return changed
            value = changed.model_dump_json(by_alias=True).encode()
            if len(value) > MAX_VALUE_BYTES:
                raise Conflict(f"all versions of {topic} together have more than {MAX_VALUE_BYTES} bytes", topic=topic)
            if await self._consul.kv_put(key, value, cas=0 if pair is None else pair.modify_index):
                return changed
        raise Conflict(f"the schema of {topic} is being changed by many at once; ask again", topic=topic)


def _read(pair: KVPair) -> TopicSchema:
    try:
        return TopicSchema.model_validate_json(pair.value)
    except ValidationError as error:
        topic = pair.key.removeprefix(PREFIX)
        raise UnreadableSchema(f"the key {pair.key} holds no schema of this release", topic=topic) from error
