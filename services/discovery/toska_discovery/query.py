"""Prepared queries: looked up by id or name, or made from the template whose name is the longest beginning of it.

What a query finds is the catalog's business; which query it is, and that no two of them can be mistaken for each other,
is decided here. Queries that are bound to a session end with it.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from toska_discovery.errors import QueryRefused
from toska_discovery.template import Template


@dataclass(frozen=True, slots=True)
class PreparedQuery:
    """A query for the instances of a service, as it was asked for.

    Attributes:
        near: Name of the node, or `_agent`, whose instances come first.
        tags: That an instance must have, or with `!` in front must not.
        nearest, datacenters: Where to look in vain elsewhere: there is one datacenter, so nothing comes of it.
        template: What makes it one of many; `None` for a query of its own.
    """

    id: str
    name: str = ""
    session: str = ""
    token: str = ""
    service: str = ""
    nearest: int = 0
    datacenters: tuple[str, ...] | None = None
    only_passing: bool = False
    ignored_checks: tuple[str, ...] | None = None
    near: str = ""
    tags: tuple[str, ...] | None = None
    node_meta: Mapping[str, str] | None = None
    service_meta: Mapping[str, str] | None = None
    connect: bool = False
    dns_ttl: str = ""
    template: Template | None = None
    create_index: int = 0
    modify_index: int = 0

    def render(self, name: str) -> "PreparedQuery":
        """The query that a template makes for `name`; any other is what it is."""
        if self.template is None:
            return self
        fill = self.template.filler(self.name, name)
        tags = None if self.tags is None else tuple(fill(tag) for tag in self.tags)
        if tags is not None and self.template.remove_empty_tags:
            tags = tuple(tag for tag in tags if tag)
        return replace(
            self,
            service=fill(self.service),
            datacenters=None if self.datacenters is None else tuple(map(fill, self.datacenters)),
            near=fill(self.near),
            tags=tags,
            node_meta=None if self.node_meta is None else {key: fill(value) for key, value in self.node_meta.items()},
        )


class Queries:
    """All prepared queries.

    Attributes:
        index: Of the last change of any of them.
    """

    def __init__(self, queries: Iterable[PreparedQuery] = (), index: int = 0) -> None:
        self._queries = {query.id: query for query in queries}
        self._names = {query.name: query.id for query in self._queries.values() if query.template is None}
        self._templates = {query.name: query.id for query in self._queries.values() if query.template is not None}
        self._names.pop("", None)
        self.index = index

    @property
    def by_id(self) -> Mapping[str, PreparedQuery]:
        """All of them."""
        return self._queries

    def find(self, query_id: str) -> PreparedQuery | None:
        """The query of an id."""
        return self._queries.get(query_id.lower())

    def resolve(self, id_or_name: str) -> PreparedQuery | None:
        """The query that is meant: of that id, else of that name, else of the template that is nearest to it."""
        found = self.find(id_or_name)
        if found is not None:
            return found
        query_id = self._names.get(id_or_name)
        if query_id is not None:
            return self._queries[query_id]
        for length in range(len(id_or_name), -1, -1):
            template_id = self._templates.get(id_or_name[:length])
            if template_id is not None:
                return self._queries[template_id].render(id_or_name)
        return None

    def bound_to(self, session_id: str) -> list[PreparedQuery]:
        """The queries that end with a session."""
        return [query for query in self._queries.values() if query.session == session_id]

    def put(self, query: PreparedQuery) -> None:
        """List a query, in place of the one of its id.

        Raises:
            QueryRefused: Another is known by its name.
        """
        if query.name and query.name.lower() in self._queries:
            raise QueryRefused(f"name '{query.name}' aliases an existing query ID")
        table = self._names if query.template is None else self._templates
        holder = table.get(query.name) if query.name or query.template is not None else None
        if holder not in {None, query.id}:
            if not query.name:
                raise QueryRefused("a query template with an empty name already exists")
            raise QueryRefused(f"name '{query.name}' aliases an existing query name")
        self.drop(query.id, query.modify_index)
        self._queries[query.id] = query
        if query.name or query.template is not None:
            table[query.name] = query.id
        self.index = query.modify_index

    def drop(self, query_id: str, index: int) -> None:
        """Take a query off the list; none of the id is fine."""
        before = self._queries.pop(query_id, None)
        if before is None:
            return
        table = self._names if before.template is None else self._templates
        if table.get(before.name) == query_id:
            del table[before.name]
        self.index = index
