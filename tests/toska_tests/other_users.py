"""Servers that refuse to be root's, run as somebody else where the tests are."""

import contextlib
import os
import pwd
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

User = pwd.struct_passwd


def find_user(*names: str) -> User | None:
    """The first of these users that there is; `None` where the tests are nobody special themselves.

    Raises:
        AssertionError: There is none of them.
    """
    if os.geteuid() != 0:
        return None
    for name in names:
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name)
    raise AssertionError(f"there is none of the users {', '.join(names)} that a server could be run as")


def give(user: User | None, *paths: Path) -> None:
    """Have files and folders belong to them."""
    if user is not None:
        for path in paths:
            os.chown(path, user.pw_uid, user.pw_gid)


def run_as(
    user: User | None, command: Sequence[str], folder: Path, log: Path, environment: Mapping[str, str]
) -> subprocess.Popen[bytes]:
    """Start a program in a session of its own; what it says is added to `log`."""
    with log.open("ab") as output:
        return subprocess.Popen(
            command,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=environment,
            start_new_session=True,
            user=None if user is None else user.pw_uid,
            group=None if user is None else user.pw_gid,
            extra_groups=None if user is None else (),
        )
