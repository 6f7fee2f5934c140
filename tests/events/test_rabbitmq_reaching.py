"""Which RabbitMQ is reached, and as whom: nodes that are away, credentials, and secrets that nobody is shown."""

import pytest
from toska_common.errors import ConfigurationError
from toska_common.events.amqp.errors import CredentialsRefused
from toska_common.events.amqp.transport import open_amqp
from toska_common.events.errors import EventsUnavailable
from toska_tests.ports import free_port
from toska_tests.rabbit_rigs import Rig
from toska_tests.rabbit_servers import PASSWORD

pytestmark = pytest.mark.anyio


async def test_credentials_that_are_refused_are_not_shown(rig: Rig) -> None:
    url = rig.server.url_at(rig.server.port, password="w%2Frong-secret")
    with pytest.raises(CredentialsRefused, match="credentials of the user 'toska' are refused") as caught:
        async with rig.open(url):
            pass
    assert "rong-secret" not in str(caught.value)


async def test_a_wrong_url_does_not_show_its_password() -> None:
    for url in (f"amqp://toska:{PASSWORD}@host/?colour=red", f"http://toska:{PASSWORD}@host", "amqp://u:s3cret@/"):
        with pytest.raises(ConfigurationError) as caught:
            async with open_amqp(url):
                pass
        assert PASSWORD not in str(caught.value)
        assert "s3cret" not in str(caught.value)


async def test_with_all_nodes_away_it_says_which(rig: Rig) -> None:
    nodes = [f"127.0.0.1:{free_port()}" for _ in range(2)]
    with pytest.raises(EventsUnavailable) as caught:
        async with rig.open(f"amqp://toska:s3cret@{','.join(nodes)}/"):
            pass
    assert all(node in caught.value.detail for node in nodes)
    assert "s3cret" not in caught.value.detail


async def test_of_several_nodes_one_that_answers_is_enough(rig: Rig) -> None:
    credentials, _, place = rig.server.url.rpartition("@")
    async with rig.open(f"{credentials}@127.0.0.1:{free_port()},{place}") as transport:
        assert transport.connected
