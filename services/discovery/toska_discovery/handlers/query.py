"""What the query of a request asks for, checked."""

from typing import Annotated

from fastapi import Depends, Query, Request
from toska_common.contracts.discovery import Health
from toska_common.errors import InvalidInput

from toska_discovery.directory import Sort
from toska_discovery.paging import MAX_LIMIT, PageRequest
from toska_discovery.selection import INSTANCE_KEYS, SERVICE_KEYS, Criteria

Text = Annotated[str, Query(max_length=128)]


def _criteria(
    health: Annotated[list[Health] | None, Query(description="Any of these states (repeated)")] = None,
    version: Annotated[str, Query(max_length=128)] = "",
    region: Annotated[str, Query(max_length=64)] = "",
    zone: Annotated[str, Query(max_length=64)] = "",
    type_: Annotated[str, Query(alias="type", max_length=64, description="Kind of service")] = "",
    tag: Annotated[list[str] | None, Query(max_length=16, description="All of these tags (repeated)")] = None,
    capability: Annotated[list[str] | None, Query(max_length=16, description="All of these (repeated)")] = None,
    q: Annotated[
        str, Query(max_length=256, description="Words, all of them in names, ids, tags, addresses or metadata")
    ] = "",
) -> Criteria:
    return Criteria(
        health=frozenset(health or ()),
        version=version,
        region=region,
        zone=zone,
        type=type_,
        tags=frozenset(tag or ()),
        capabilities=frozenset(capability or ()),
        words=tuple(q.lower().split()),
    )


def _page(
    request: Request,
    limit: Annotated[int, Query(ge=1, le=MAX_LIMIT, description="Items on a page")] = MAX_LIMIT,
    page: Annotated[int, Query(ge=0, le=1_000_000, description="Number of the page, from 1")] = 0,
    cursor: Annotated[str, Query(max_length=1024, description="What the page before gave, instead of a number")] = "",
) -> PageRequest:
    asked = sorted(item for item in request.query_params.multi_items() if item[0] not in {"limit", "page", "cursor"})
    return PageRequest(limit=limit, page=page, cursor=cursor, question=repr((request.url.path, asked)))


def parse_sort(text: str, keys: frozenset[str]) -> Sort:
    """`name`, or `-name` for the largest first.

    Raises:
        InvalidInput: Not one of `keys`.
    """
    sort = Sort(text.removeprefix("-"), descending=text.startswith("-"))
    if sort.key not in keys:
        reason = f"sort by one of {', '.join(sorted(keys))}, with - in front for the largest first"
        raise InvalidInput(f"query.sort: {reason}", problems=[{"field": "query.sort", "reason": reason}])
    return sort


def _sort_services(
    sort: Annotated[str, Query(max_length=32, description="`-` in front: largest first")] = "name",
) -> Sort:
    return parse_sort(sort, frozenset(SERVICE_KEYS))


def _sort_instances(
    sort: Annotated[str, Query(max_length=32, description="`-` in front: largest first")] = "id",
) -> Sort:
    return parse_sort(sort, frozenset(INSTANCE_KEYS))


AskedCriteria = Annotated[Criteria, Depends(_criteria)]
AskedPage = Annotated[PageRequest, Depends(_page)]
ServiceSort = Annotated[Sort, Depends(_sort_services)]
InstanceSort = Annotated[Sort, Depends(_sort_instances)]
