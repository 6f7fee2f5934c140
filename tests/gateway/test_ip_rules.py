"""Who is let in by address: networks, both families, and whose address counts behind proxies."""

from ipaddress import IPv4Address, IPv6Address, ip_network
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from toska_gateway.worker.edge.access import IpRules
from toska_gateway.worker.edge.networks import Networks, read_address
from toska_tests.gateways import Gateway, idle_plane, single
from toska_tests.raw_http import ask, get, upstream


def rules(allow: list[str], deny: list[str]) -> IpRules:
    return IpRules({"allow": allow, "deny": deny}, "one", idle_plane())


@pytest.mark.parametrize(
    ("allow", "deny", "client", "served"),
    [
        (["10.0.0.0/8"], [], "10.1.2.3", True),
        (["10.0.0.0/8"], [], "11.0.0.1", False),
        (["10.0.0.0/8"], ["10.1.0.0/16"], "10.1.2.3", False),
        (["10.1.2.3/32"], ["10.0.0.0/8"], "10.1.2.3", False),
        ([], ["10.0.0.0/8"], "11.0.0.1", True),
        ([], ["10.0.0.0/8"], "2001:db8::1", True),
        (["10.0.0.0/8"], [], "2001:db8::1", False),
        (["2001:db8::/32"], [], "2001:db8::1", True),
        (["2001:db8::/32"], [], "2001:db9::1", False),
        (["10.0.0.0/8"], [], "::ffff:10.1.2.3", True),
        (["::ffff:10.0.0.0/104"], [], "10.1.2.3", True),
        ([], ["10.0.0.0/8"], "::ffff:a01:203", False),
        ([], ["10.0.0.0/8"], "10.1.2.3:4567", False),
        ([], ["2001:db8::/32"], "[2001:db8::1]:4567", False),
        ([], ["0.0.0.0/0"], "2001:db8::1", True),
        ([], ["10.0.0.0/8"], "unknown", False),
        ([], ["10.0.0.0/8"], "", False),
        ([], ["10.0.0.0/8"], "unix", True),
        (["10.0.0.0/8"], [], "unix", False),
        (["10.0.0.0/8", "unix:"], [], "unix", True),
        ([], ["unix:"], "unix", False),
    ],
)
def test_deny_goes_before_allow_and_what_is_no_address_is_not_served(
    allow: list[str], deny: list[str], client: str, served: bool
) -> None:
    assert rules(allow, deny).serves(client.encode()) is served


def network_of(address: IPv4Address | IPv6Address, length: int) -> str:
    return str(ip_network(f"{address}/{min(length, address.max_prefixlen)}", strict=False))


NETWORK = st.builds(network_of, st.ip_addresses(), st.integers(0, 128))


@given(networks=st.lists(NETWORK, max_size=8), data=st.data())
def test_a_set_of_networks_holds_what_one_of_them_holds(networks: list[str], data: st.DataObject) -> None:
    inside = [ip_network(written).network_address for written in networks]
    near = st.sampled_from(inside) if inside else st.nothing()
    address = data.draw(st.one_of(near, st.ip_addresses()))
    # An address of IPv4 in IPv6 is looked up as what it stands for, so no network of IPv6 holds it.
    if getattr(address, "ipv4_mapped", None) is None:
        expected = any(address in ip_network(written) for written in networks if ":" in written or address.version == 4)
        assert (address in Networks(networks)) is expected


@given(st.text(max_size=60))
def test_whatever_a_proxy_writes_is_an_address_or_none(written: str) -> None:
    address = read_address(written)
    assert address is None or not getattr(address, "ipv4_mapped", None)


async def test_a_refused_client_gets_403_and_the_upstream_nothing(gateway: Gateway) -> None:
    async with upstream() as app:
        await gateway.serve(single(app.port, policies={"ip": {"deny": ["127.0.0.0/8"]}}))
        answer = await ask(gateway.address, get())
        assert (answer.status, answer.error) == (403, "ip-denied")
        assert app.requests == []
        await gateway.serve(single(app.port, policies={"ip": {"allow": ["127.0.0.0/8"]}}))
        assert (await ask(gateway.address, get())).status == 200


async def test_behind_trusted_proxies_it_is_the_clients_own_address(gateway: Gateway) -> None:
    async with upstream() as app:
        document = single(app.port, policies={"ip": {"allow": ["192.0.2.0/24", "2001:db8::/32"]}})
        trusting = {**document, "server": {"trusted_proxies": ["127.0.0.1/32", "10.0.0.0/8"]}}

        async def status(*chain: str) -> int:
            return (await ask(gateway.address, get("/", *[f"X-Forwarded-For: {one}" for one in chain]))).status

        await gateway.serve(trusting)
        assert await status("192.0.2.7") == 200
        assert await status("192.0.2.7, 10.0.0.9") == 200
        assert await status("2001:db8::5") == 200
        # What the client itself wrote in front of the chain counts for nothing.
        assert await status("192.0.2.7, 198.51.100.1") == 403
        assert await status("192.0.2.7", "198.51.100.1, 10.0.0.9") == 403
        assert await status() == 403
        await gateway.serve(document)
        assert await status("192.0.2.7") == 403


@pytest.mark.parametrize("action", [{"respond": {"body": "hello"}}, {"redirect": {"to": "/b"}}])
async def test_redirects_and_fixed_answers_are_guarded_too(gateway: Gateway, action: dict[str, Any]) -> None:
    policies = {"ip": {"deny": ["127.0.0.0/8"]}}
    await gateway.serve({"routes": [{"name": "a", "match": {"path": "/a"}, "policies": policies, **action}]})
    assert (await ask(gateway.address, get("/a"))).error == "ip-denied"
