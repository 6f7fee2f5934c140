"""The entry point of the `toska` command: errors become one line and an exit status.

0: done, or stopped as asked. 1: something failed on the way. 2: a setting, a port or an argument is wrong, and nothing
was started.
"""

import sys
from collections.abc import Sequence

from toska_common.errors import ConfigurationError, MeshError


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; by default this process's own."""
    from toska_cli.commands import app

    try:
        app(args=None if arguments is None else list(arguments))
    except ConfigurationError as error:
        _fail(error.detail, 2)
    except MeshError as error:
        _fail(error.detail, 1)
    except BrokenPipeError:
        # The reader of our output, such as `head`, has had enough.
        sys.stderr.close()
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)


def _fail(reason: str, code: int) -> None:
    sys.stderr.write(f"toska: {reason}\n")
    sys.exit(code)
