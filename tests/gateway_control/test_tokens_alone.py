"""A gateway that serves a routing file alone, with tokens: what it says at its start, and of its keys."""

import json
from pathlib import Path

import pytest
from toska_common.errors import ConfigurationError
from toska_gateway.routes_file import RoutesFile
from toska_tests.issuers import SigningKey, key_set

KEY = SigningKey("ES256")
ROUTES = """\
clusters: {app: {endpoints: [{address: 127.0.0.1, port: 9001}]}}
routes:
  - name: shop
    match: {path_prefix: /}
    to: app
    policies:
      auth:
        jwt:
          issuer: https://auth.example
          audience: shop
          algorithms: [ES256]
          jwks_file: keys/jwks.json
"""


def test_keys_are_looked_for_beside_the_routing_file(tmp_path: Path) -> None:
    (tmp_path / "mesh.yaml").write_text(ROUTES)
    (tmp_path / "keys").mkdir()
    (tmp_path / "keys" / "jwks.json").write_text(json.dumps(key_set(KEY)))
    assert RoutesFile(tmp_path / "mesh.yaml", tmp_path).first.table.routes[0].policies.auth is not None


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "it cannot be read: No such file"),
        ("{", "it is not JSON"),
        (json.dumps(key_set(SigningKey("RS256"))), "key 0 is not used: it goes with none of the algorithms"),
    ],
)
def test_keys_that_cannot_be_used_are_named_with_their_line(tmp_path: Path, content: str | None, reason: str) -> None:
    (tmp_path / "mesh.yaml").write_text(ROUTES)
    (tmp_path / "keys").mkdir()
    if content is not None:
        (tmp_path / "keys" / "jwks.json").write_text(content)
    with pytest.raises(ConfigurationError) as refused:
        RoutesFile(tmp_path / "mesh.yaml", tmp_path)
    text = str(refused.value)
    assert "line 12: routes[0].policies.auth.jwt.jwks_file: keys/jwks.json: " in text
    assert reason in text
