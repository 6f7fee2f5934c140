"""The runners of all kinds of checks, opened together."""

from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager

from toska_common.targets import TargetRules

from toska_discovery.check import CheckKind
from toska_discovery.probing.dialling import Dialler
from toska_discovery.probing.grpc import GrpcRunner
from toska_discovery.probing.http import HttpRunner
from toska_discovery.probing.script import NoScripts, ScriptRunner
from toska_discovery.probing.tcp import TcpRunner
from toska_discovery.probing.verdict import Runner


@asynccontextmanager
async def open_runners(targets: TargetRules, *, scripts: bool) -> AsyncGenerator[Mapping[CheckKind, Runner]]:
    """A runner for each kind of check that is probed, none of which connects to where `targets` forbids it."""
    dialler = Dialler(targets)
    async with HttpRunner.open(dialler) as http:
        yield {
            CheckKind.HTTP: http,
            CheckKind.TCP: TcpRunner(dialler),
            CheckKind.GRPC: GrpcRunner(dialler),
            CheckKind.SCRIPT: ScriptRunner() if scripts else NoScripts(),
        }
