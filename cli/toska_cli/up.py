"""`toska up`: a whole mesh in the foreground, until Ctrl-C."""

import contextlib
import gc
import resource
from collections.abc import Generator
from typing import cast

import anyio
from toska_common.credentials import ensure_credentials
from toska_common.errors import MeshError
from toska_common.logging import configure_logging

from toska_cli import STARTED_AT
from toska_cli.children import NurseryHandle, fork_nursery
from toska_cli.examples import ExampleProcesses
from toska_cli.home import HomeLock
from toska_cli.host import Host, Reporter
from toska_cli.importing import quick_imports
from toska_cli.plan import MeshPlan, UpOptions, plan_mesh
from toska_cli.serving import import_for_serving, run_child


def up(options: UpOptions, reporter: Reporter, *, verbose: bool = False) -> None:
    """Run a mesh until it is told to stop.

    Raises:
        ConfigurationError: A setting, a port or the home; nothing was started.
        MeshError: A service could not be started; everything was stopped again.
    """
    plan = plan_mesh(options)
    with quick_imports():  # only now: half a second, for which no refusal need wait
        import_for_serving()
    with _nursery(plan) as nursery, contextlib.closing(HomeLock.acquire(plan.home)):
        (plan.home / "logs").mkdir(mode=0o700, exist_ok=True)
        ensure_credentials(plan.home)
        configure_logging(
            level=plan.discovery.log_level,
            format=plan.discovery.log_format,
            home=plan.home,
            stream_level=None if verbose else "warning",
        )
        raise_file_limit()
        with contextlib.closing(Host(plan, reporter, nursery, STARTED_AT)) as host:
            with quick_imports():
                host.open()
            gc.freeze()  # what is there now stays: not worth another look
            try:
                anyio.run(host.run, backend_options={"use_uvloop": True})
            except BaseExceptionGroup as group:
                raise _explain(group, plan) from group


def raise_file_limit() -> None:
    """Allow as many open files as the system lets us: each connection is one."""
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):  # macOS says "unlimited" and means less
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


@contextlib.contextmanager
def _nursery(plan: MeshPlan) -> Generator[NurseryHandle | None]:
    if plan.examples_from is None:
        yield None
        return
    gc.freeze()  # the collector would otherwise touch, and so copy, every page that is shared with the children
    handle = fork_nursery(run_child)
    try:
        yield handle
    finally:
        ExampleProcesses(handle).kill()


def _explain(group: BaseExceptionGroup[BaseException], plan: MeshPlan) -> BaseException:
    """What to tell the user of a start that failed: the first error, in our own words if it is not ours."""
    error = group.exceptions[0]
    if isinstance(error, BaseExceptionGroup):
        return _explain(cast("BaseExceptionGroup[BaseException]", error), plan)
    if isinstance(error, MeshError) or not isinstance(error, Exception):
        return error
    return MeshError(f"the mesh could not start: {type(error).__name__}: {error}; see {plan.home / 'logs'}")
