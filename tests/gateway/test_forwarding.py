"""What of a request reaches the upstream, and what of its response the client."""

from toska_tests.gateways import Gateway, single
from toska_tests.raw_http import ask, get, upstream


async def test_a_request_reaches_the_upstream_and_its_response_the_client(gateway: Gateway) -> None:
    async with upstream() as app:
        await gateway.serve(single(app.port))
        answer = await ask(gateway.address, get("/a?b=c"))
        assert answer.status == 200
        assert answer.body == b"ok"
        assert app.requests[0].target == "/a?b=c"
