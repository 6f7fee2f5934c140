"""Tokens in files: made once, and only read from then on."""

from pathlib import Path

import pytest
from toska_common.credentials import Access, ensure_credentials, ensure_token
from toska_common.errors import ConfigurationError


def test_a_token_is_made_once_and_is_its_owners_alone(tmp_path: Path) -> None:
    token = ensure_token(tmp_path / "admin.token", Access.ADMIN)
    assert token.startswith("toska_admin_")
    assert (tmp_path / "admin.token").stat().st_mode & 0o777 == 0o600
    assert ensure_token(tmp_path / "admin.token", Access.ADMIN) == token


def test_where_tokens_are_nothing_is_written_so_that_a_full_disk_does_not_matter(tmp_path: Path) -> None:
    made = ensure_credentials(tmp_path)
    written_at = tmp_path.stat().st_mtime_ns
    assert ensure_credentials(tmp_path) == made
    assert tmp_path.stat().st_mtime_ns == written_at


def test_an_empty_token_is_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "admin.token").touch()
    with pytest.raises(ConfigurationError, match="is empty; delete it and restart the mesh"):
        ensure_token(tmp_path / "admin.token", Access.ADMIN)
