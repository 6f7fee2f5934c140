"""`acl/…` and `agent/token/…`: as Consul answers with ACLs disabled, or about the mesh's own two tokens.

With `TOSKA_REGISTRY_ACL` every request needs a token, and Consul's tools can ask whose it is and what it may. The
tokens themselves are files of the mesh's home: nothing here makes, changes or shows one.
"""

import uuid
from collections.abc import Awaitable, Callable
from typing import Any

from toska_common.credentials import Access

from toska_discovery.consul.access import ACL_NOT_FOUND, PERMISSION_DENIED, require_admin
from toska_discovery.consul.endpoints import Endpoints, Handler
from toska_discovery.consul.request import ConsulRequest, Refusal, Reply, json_reply, text_reply

DISABLED = "ACL support disabled"
_OWNED = f"{PERMISSION_DENIED}: tokens, policies and roles are the mesh's own, and not made here"
_EPOCH = "1970-01-01T00:00:00Z"
_POLICIES = {
    Access.ADMIN: (
        "00000000-0000-0000-0000-000000000001",
        "global-management",
        "Everything: all changes, keys, sessions",
    ),
    Access.JOIN: (
        "00000000-0000-0000-0000-000000000002",
        "join",
        "Register, renew and deregister services other than the mesh's own; read services",
    ),
}

Answer = Callable[[Endpoints, ConsulRequest], Reply]


def _enforced(answer: Answer) -> Handler:
    """A handler that gives `answer` where ACLs are enforced."""

    async def handle(here: Endpoints, request: ConsulRequest) -> Reply:
        return answer(here, request) if here.acl else text_reply(401, DISABLED)

    return handle


def _for_admin(answer: Answer) -> Handler:
    def checked(here: Endpoints, request: ConsulRequest) -> Reply:
        require_admin(request.access, "the list of tokens and policies")
        return answer(here, request)

    return _enforced(checked)


def _refuse(_: Endpoints, _request: ConsulRequest) -> Reply:
    return text_reply(403, _OWNED)


def _refuse_bootstrap(_: Endpoints, _request: ConsulRequest) -> Reply:
    return text_reply(403, f"{PERMISSION_DENIED}: ACL bootstrap no longer allowed (reset index: 1)")


def _get_own_token(here: Endpoints, request: ConsulRequest) -> Reply:
    if request.access is None:
        raise Refusal(403, ACL_NOT_FOUND)
    return json_reply(_token(here, request.access))


def _list_tokens(here: Endpoints, _: ConsulRequest) -> Reply:
    return json_reply([_token(here, access) for access in _POLICIES])


def _get_token(here: Endpoints, request: ConsulRequest) -> Reply:
    found = [token for token in (_token(here, access) for access in _POLICIES) if token["AccessorID"] == request.name]
    return json_reply(found[0]) if found else text_reply(403, ACL_NOT_FOUND)


def _list_policies(_: Endpoints, _request: ConsulRequest) -> Reply:
    return json_reply([_policy(access) for access in _POLICIES])


def _get_policy(_: Endpoints, request: ConsulRequest) -> Reply:
    for access, (own_id, name, _description) in _POLICIES.items():
        if request.name in {own_id, f"name/{name}"}:
            return json_reply({**_policy(access), "Rules": ""})
    return text_reply(403, ACL_NOT_FOUND)


def _list_nothing(_: Endpoints, _request: ConsulRequest) -> Reply:
    return json_reply([])


def _get_nothing(_: Endpoints, _request: ConsulRequest) -> Reply:
    return text_reply(403, ACL_NOT_FOUND)


def _get_replication(here: Endpoints, _: ConsulRequest) -> Reply:
    return json_reply(
        {
            "Enabled": False,
            "Running": False,
            "SourceDatacenter": here.node.datacenter,
            "ReplicationType": "",
            "ReplicatedIndex": 0,
            "ReplicatedTokenIndex": 0,
            "LastSuccess": "0001-01-01T00:00:00Z",
            "LastError": "0001-01-01T00:00:00Z",
        }
    )


def _token(here: Endpoints, access: Access) -> dict[str, Any]:
    policy_id, name, description = _POLICIES[access]
    return {
        # The same over restarts, and another in every mesh; it says nothing about the secret.
        "AccessorID": str(uuid.uuid5(uuid.UUID(here.node.id), f"token/{access.value}")),
        "SecretID": "<hidden>",
        "Description": description,
        "Policies": [{"ID": policy_id, "Name": name}],
        "Local": False,
        "CreateTime": _EPOCH,
        "Hash": "",
        "CreateIndex": here.node.index,
        "ModifyIndex": here.node.index,
    }


def _policy(access: Access) -> dict[str, Any]:
    own_id, name, description = _POLICIES[access]
    return {
        "ID": own_id,
        "Name": name,
        "Description": description,
        "Datacenters": None,
        "Hash": "",
        "CreateIndex": 1,
        "ModifyIndex": 1,
    }


Methods = dict[str, Callable[[Endpoints, ConsulRequest], Awaitable[Reply]]]

_WRITE = _enforced(_refuse)
_NOTHING: Methods = {"GET": _for_admin(_get_nothing), "PUT": _WRITE, "DELETE": _WRITE}

EXACT: dict[str, Methods] = {
    "acl/bootstrap": {"PUT": _enforced(_refuse_bootstrap)},
    "acl/replication": {"GET": _enforced(_get_replication)},
    "acl/login": {"POST": _WRITE},
    "acl/logout": {"POST": _WRITE},
    "acl/rules/translate": {"POST": _WRITE},
    "acl/token": {"PUT": _WRITE},
    "acl/token/self": {"GET": _enforced(_get_own_token)},
    "acl/tokens": {"GET": _for_admin(_list_tokens)},
    "acl/policy": {"PUT": _WRITE},
    "acl/policies": {"GET": _for_admin(_list_policies)},
    "acl/role": {"PUT": _WRITE},
    "acl/roles": {"GET": _for_admin(_list_nothing)},
    "acl/auth-method": {"PUT": _WRITE},
    "acl/auth-methods": {"GET": _for_admin(_list_nothing)},
    "acl/binding-rule": {"PUT": _WRITE},
    "acl/binding-rules": {"GET": _for_admin(_list_nothing)},
    "acl/create": {"PUT": _WRITE},
    "acl/update": {"PUT": _WRITE},
    "acl/list": {"GET": _for_admin(_list_nothing)},
}
NAMED: dict[str, Methods] = {
    "acl/token": {"GET": _for_admin(_get_token), "PUT": _WRITE, "DELETE": _WRITE},
    "acl/policy": {"GET": _for_admin(_get_policy), "PUT": _WRITE, "DELETE": _WRITE},
    "acl/role": _NOTHING,
    "acl/auth-method": _NOTHING,
    "acl/binding-rule": _NOTHING,
    "acl/rules/translate": {"GET": _for_admin(_get_nothing)},
    "acl/destroy": {"PUT": _WRITE},
    "acl/info": {"GET": _for_admin(_get_nothing)},
    "acl/clone": {"PUT": _WRITE},
    "agent/token": {"PUT": _WRITE},
}
