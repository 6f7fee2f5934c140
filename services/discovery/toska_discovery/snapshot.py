"""Snapshots: all that the registry holds, in one archive that is restored whole or not at all.

The archive is a gzipped tar, as Consul's is: `meta.json`, `state.jsonl` with one row of the state file a line, and
`SHA256SUMS` of both. The rows are our own, so neither registry reads the other's.
"""

import base64
import gzip
import hashlib
import io
import json
import tarfile
import zlib
from collections.abc import Iterator
from typing import Any

from toska_discovery.errors import SnapshotDamaged
from toska_discovery.registry import Contents, Registry
from toska_discovery.rows import (
    entry_columns,
    instance_column,
    node_column,
    query_column,
    read_entry,
    read_instance,
    read_node,
    read_query,
    read_session,
    session_column,
)

FORMAT, VERSION = "toska-discovery", 1
META, STATE, SUMS = "meta.json", "state.jsonl", "SHA256SUMS"
MAX_BYTES = 256 * 1024 * 1024
"""Longest archive that is read, once unpacked."""


def write_snapshot(contents: Contents) -> bytes:
    """An archive of `contents`."""
    state = "\n".join(json.dumps(row) for row in _rows(contents)).encode()
    meta = json.dumps({"Format": FORMAT, "Version": VERSION, "Index": contents.index, "Size": len(state)}).encode()
    sums = "".join(f"{_digest(body)}  {name}\n" for name, body in ((META, meta), (STATE, state))).encode()
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        for name, body in ((META, meta), (STATE, state), (SUMS, sums)):
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(body), 0o600
            archive.addfile(member, io.BytesIO(body))
    return packed.getvalue()


def read_snapshot(packed: bytes) -> Contents:
    """The contents of an archive that is whole and ours.

    Raises:
        SnapshotDamaged: It is not, in Consul's words where it has some.
    """
    members = _unpack(packed)
    for name, digest in _sums(members).items():
        if name not in members or _digest(members[name]) != digest:
            raise SnapshotDamaged(
                f'failed to read snapshot file: failed checking integrity of snapshot: hash check failed for "{name}"'
            )
    try:
        meta: dict[str, Any] = json.loads(members[META])
        if (meta.get("Format"), meta.get("Version")) != (FORMAT, VERSION):
            raise SnapshotDamaged("failed to read snapshot file: it was not made by this kind of registry")
        return _contents(meta["Index"], members[STATE])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise SnapshotDamaged(f"failed to read snapshot file: {error!r}") from error


def contents_of(state: Registry) -> Contents:
    """What there is to be archived, at this moment; its parts are immutable and may be written elsewhere."""
    coordination = state.coordination
    return Contents(
        index=state.index,
        instances=[*state.instances.values()],
        nodes=dict(state.nodes),
        keys=coordination.keys.list_below("")[0],
        sessions=[*coordination.sessions.by_id.values()],
        queries=[*coordination.queries.by_id.values()],
    )


def _rows(contents: Contents) -> Iterator[list[str]]:
    for instance in contents.instances:
        yield ["instance", instance_column(instance)]
    for name, node in contents.nodes.items():
        yield ["node", name, node_column(node)]
    for entry in contents.keys:
        body, value = entry_columns(entry)
        yield ["key", entry.key, body, base64.b64encode(value).decode()]
    for session in contents.sessions:
        yield ["session", session_column(session)]
    for query in contents.queries:
        yield ["query", query_column(query)]


def _contents(index: int, state: bytes) -> Contents:
    contents = Contents(index)
    for line in state.splitlines():
        match json.loads(line):
            case ["instance", body]:
                contents.instances.append(read_instance(body))
            case ["node", name, body]:
                contents.nodes[name] = read_node(body)
            case ["key", key, body, value]:
                contents.keys.append(read_entry(key, body, base64.b64decode(value)))
            case ["session", body]:
                contents.sessions.append(read_session(body))
            case ["query", body]:
                contents.queries.append(read_query(body))
            case other:
                raise ValueError(f"a row of an unknown kind: {str(other)[:40]}")
    return contents


def _unpack(packed: bytes) -> dict[str, bytes]:
    try:
        with gzip.open(io.BytesIO(packed)) as stream:
            unpacked = stream.read(MAX_BYTES + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise SnapshotDamaged(f"failed to decompress snapshot: {error or 'EOF'}") from error
    if not unpacked or len(unpacked) > MAX_BYTES:
        raise SnapshotDamaged(f"failed to decompress snapshot: {'too large' if unpacked else 'EOF'}")
    try:
        with tarfile.open(fileobj=io.BytesIO(unpacked), mode="r:") as archive:
            files = {member.name: archive.extractfile(member) for member in archive if member.isfile()}
            return {name: file.read() for name, file in files.items() if file is not None}
    except (tarfile.TarError, OSError) as error:
        raise SnapshotDamaged(f"failed to read snapshot file: {error}") from error


def _sums(members: dict[str, bytes]) -> dict[str, str]:
    if SUMS not in members:
        raise SnapshotDamaged(f"failed to read snapshot file: {SUMS} is missing")
    lines = (line.partition("  ") for line in members[SUMS].decode(errors="replace").splitlines())
    sums = {name: digest for digest, _, name in lines}
    return {**dict.fromkeys((META, STATE), ""), **sums} if META in members and STATE in members else sums


def _digest(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()
