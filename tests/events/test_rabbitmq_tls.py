"""RabbitMQ over TLS: who is believed by whom, what is said where somebody is not, and to whom secrets are shown."""

from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from toska_common.errors import ConfigurationError
from toska_common.events.amqp.errors import CredentialsRefused, TlsFailed
from toska_common.events.amqp.transport import open_amqp
from toska_tests.certificates import Authority, Pair, with_passphrase
from toska_tests.event_carriers import publish, take_acked
from toska_tests.rabbit_rigs import Rig
from toska_tests.rabbit_servers import PASSWORD, RabbitServer

pytestmark = pytest.mark.anyio


@dataclass(frozen=True)
class Secured:
    """Where a RabbitMQ takes connections by TLS, by whom it is known, and what a client may show it."""

    port: int
    authority: Authority
    client: Pair

    def url(self, server: RabbitServer, *, authority: Path | None = None, shown: Pair | None = None) -> str:
        files = f"cafile={authority or self.authority.file}"
        if shown is not None:
            files += f"&certfile={shown.certificate}&keyfile={shown.key}"
        return f"{server.url_at(self.port).replace('amqp:', 'amqps:')}?{files}"


@pytest.fixture(scope="module")
def issued(tmp_path_factory: pytest.TempPathFactory) -> tuple[Authority, Pair, Pair]:
    authority = Authority(tmp_path_factory.mktemp("authority"))
    return authority, authority.issue("server", "127.0.0.1"), authority.issue("client", "shop")


@pytest.fixture
async def secured(rig: Rig, issued: tuple[Authority, Pair, Pair]) -> Secured:
    authority, server, client = issued
    port = rig.server.listen_by_tls(authority.file, server.certificate, server.key, asks_clients=False)
    return Secured(port, authority, client)


@pytest.fixture
async def asking(rig: Rig, issued: tuple[Authority, Pair, Pair]) -> Secured:
    """The same, of which clients without a certificate are sent away."""
    authority, server, client = issued
    port = rig.server.listen_by_tls(authority.file, server.certificate, server.key, asks_clients=True)
    return Secured(port, authority, client)


async def test_events_travel_by_tls_where_the_authority_is_the_right_one(rig: Rig, secured: Secured) -> None:
    url = f"{secured.url(rig.server)}&namespace={rig.namespace}"
    async with open_amqp(url) as transport, transport.subscribe(rig.wanted) as consumer:
        await publish(transport, *rig.events(0, 2))
        assert await take_acked(consumer, 2) == [b"0", b"1"]


async def test_a_node_that_the_authority_does_not_know_is_not_believed(
    rig: Rig, secured: Secured, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    stranger = Authority(tmp_path, "Stranger")
    with pytest.raises(TlsFailed, match=rf"127\.0\.0\.1:{secured.port}: TLS failed: .* not believed: self-signed"):
        async with open_amqp(secured.url(rig.server, authority=stranger.file)):
            pass
    out, err = capfd.readouterr()
    assert "rabbitmq_unreachable" in out
    assert PASSWORD not in out + err
    assert "se%3Acret" not in out + err


async def test_a_node_with_the_certificate_of_another_one_is_not_believed(
    rig: Rig, issued: tuple[Authority, Pair, Pair]
) -> None:
    authority, _, client = issued
    other = authority.issue("other", "rabbit-2.example")
    port = rig.server.listen_by_tls(authority.file, other.certificate, other.key, asks_clients=False)
    with pytest.raises(TlsFailed, match=r"not believed: .*mismatch"):
        async with open_amqp(Secured(port, authority, client).url(rig.server)):
            pass


async def test_a_node_that_asks_for_a_certificate_is_shown_ours(rig: Rig, asking: Secured) -> None:
    async with open_amqp(f"{asking.url(rig.server, shown=asking.client)}&namespace={rig.namespace}") as transport:
        assert transport.connected


async def test_a_node_that_asks_for_a_certificate_says_so_where_there_is_none(rig: Rig, asking: Secured) -> None:
    with pytest.raises(TlsFailed, match=r"TLS failed: .*certificate required"):
        async with open_amqp(asking.url(rig.server)):
            pass


async def test_a_certificate_of_somebody_else_is_refused_by_the_node(rig: Rig, asking: Secured, tmp_path: Path) -> None:
    stranger = Authority(tmp_path, "Stranger").issue("client", "shop")
    with pytest.raises(TlsFailed, match=r"TLS failed: .*unknown ca"):
        async with open_amqp(asking.url(rig.server, shown=stranger)):
            pass


async def test_a_port_without_tls_is_told_from_one_with_another_certificate(rig: Rig, secured: Secured) -> None:
    with pytest.raises(TlsFailed, match=r"TLS failed: .*wrong version number"):
        async with open_amqp(replace(secured, port=rig.server.port).url(rig.server)):
            pass


async def test_credentials_that_are_refused_by_tls_are_credentials(rig: Rig, secured: Secured) -> None:
    url = secured.url(rig.server).replace("se%3Acret", "other-s3cret")
    with pytest.raises(CredentialsRefused, match="credentials of the user 'toska' are refused") as caught:
        async with open_amqp(url):
            pass
    assert "s3cret" not in str(caught.value)


async def test_files_that_are_of_no_use_are_named_before_anything_is_opened(
    issued: tuple[Authority, Pair, Pair], tmp_path: Path
) -> None:
    authority, server, client = issued
    none = tmp_path / "none.pem"
    empty = tmp_path / "empty.pem"
    empty.write_text("")
    for query, what in {
        f"cafile={none}": rf"cafile in the URL of RabbitMQ: {none}: No such file",
        f"cafile={empty}": rf"cafile .*{empty}: it is no PEM file",
        f"cafile={authority.file}&certfile={none}": rf"certfile .*{none}: No such file",
        f"certfile={client.certificate}&keyfile={server.key}": r"certfile .* with keyfile .*key values mismatch",
        f"certfile={client.certificate}&keyfile={with_passphrase(client)}": r"the key has a passphrase",
    }.items():
        with pytest.raises(ConfigurationError, match=what) as caught:
            async with open_amqp(f"amqps://u:s3cret@127.0.0.1:1/?{query}"):
                pass
        assert "s3cret" not in str(caught.value)
