"""Every type of problem document (RFC 9457) that the mesh answers with: what it means, and what to do about it.

`type` in a problem document is `/problems/<code>`, which is where these are shown. A code without an entry of its own
is explained by its status.
"""

from http import HTTPStatus
from typing import Final

from toska_common.contracts.gateway import ProblemType
from toska_common.errors import Fault


def _type(code: str, status: int, title: str, fault: Fault, meaning: str, remedy: str) -> ProblemType:
    return ProblemType(
        code=code, type=f"/problems/{code}", status=status, title=title, fault=fault, meaning=meaning, remedy=remedy
    )


_LIMITS = "The limits stand under server.limits in the routing file."
_SYNTAX = "Send the request as RFC 9112 says; most clients do so by themselves."

PROBLEM_TYPES: Final = {
    item.code: item
    for item in (
        # Finding a route
        _type("no-route", 404, "No route matches", "caller",
              "The gateway has no route for this host, path and method.",
              "Compare the request with the routes at /api/v1/gateway/routes. A service gets /{service}/… by itself "
              "only if it was registered with expose=True; /metrics and /health are never among it."),
        _type("method-not-allowed", 405, "Method not allowed", "caller",
              "There is something at this path, and it does not take this method.",
              "Use one of the methods in the Allow header."),
        # At the door
        _type("ip-denied", 403, "Address not served", "caller",
              "The route does not serve clients of this address: policies.ip says which it does.",
              "Come from an address that is served. Behind a load balancer, let server.trusted_proxies name it: else "
              "its address is taken for the client's."),
        _type("https-only", 403, "Served over HTTPS only", "caller",
              "The route is not served over plain HTTP (policies.require_https).",
              "Use an https:// URL. Of a proxy that speaks TLS for the gateway, server.trusted_proxies has to know."),
        _type("cors-denied", 403, "Not allowed to pages of this origin", "caller",
              "A page of another origin asked for leave (a preflight), or opened a WebSocket, and policies.cors of the "
              "route does not allow it; the detail says whether it is the origin, the method or a header.",
              "Add it to allow_origins, allow_methods or allow_headers, if such pages may."),
        _type("unknown-api-version", 400, "Unknown version of the API", "caller",
              "The request names a version of the API that is not there, or none although one has to be named. "
              "By Accept it is 406.",
              "Use one of the versions that the detail names."),
        _type("api-version-gone", 410, "Version of the API is gone", "caller",
              "This version of the API had a last day, and that is past.",
              "Use one of the versions that the detail names; Link in the answer may say more."),
        _type("fault-injected", 503, "Fault on purpose", "mesh",
              "This failure was put in on purpose, by policies.fault of the route, with the status given there; "
              "x-toska-fault in an answer tells such faults.",
              "Handle it as you would the real one; take policies.fault away when the trial is over."),
        _type("rate-limited", 429, "Too many requests", "caller",
              "The route's rate limit is used up for this caller.",
              "Wait as long as Retry-After says. RateLimit in each answer tells what is left."),
        _type("not-cached", 504, "Not in the cache", "caller",
              "The request says Cache-Control: only-if-cached, and no stored response is good for it.",
              "Leave only-if-cached away to have the upstream asked."),
        _type("policy-timeout", 504, "Not decided in time", "mesh",
              "A policy of the route waited for something, a key or a decision, that did not come in time.",
              "Try again; if it lasts, see what the route's policies ask: the log names it."),
        # Requests that are not served as they came
        _type("bad-request", 400, "Bad request", "caller",
              "The request is not one that can be read.", _SYNTAX),
        _type("bad-request-line", 400, "Malformed request line", "caller",
              "The first line of the request is not a method, a target and a version.", _SYNTAX),
        _type("bad-header", 400, "Malformed header field", "caller",
              "A header field is malformed. What one part of the way would read so and another part otherwise is "
              "refused, because it could smuggle a second request.", _SYNTAX),
        _type("bad-framing", 400, "Ambiguous length of the body", "caller",
              "Content-Length and Transfer-Encoding do not say clearly where the body ends.",
              "Send one of them, once: a plain decimal length, or chunked."),
        _type("bad-chunk", 400, "Malformed chunked body", "caller",
              "The chunked body is malformed.", "Send each chunk as its size in hexadecimal, CRLF, the bytes, CRLF."),
        _type("bad-host", 400, "Host missing or malformed", "caller",
              "A request has exactly one Host header: a name or an address, with a port perhaps.",
              "Send one Host header."),
        _type("bad-target", 400, "Malformed request target", "caller",
              "The path is not one that can be matched without doubt: a broken escape, an encoded slash, a backslash "
              "or a control character.", "Encode the path as RFC 3986 says, and no slash in it."),
        _type("header-too-large", 431, "Request header too large", "caller",
              "The request's header fields together are larger than allowed.", f"Send less. {_LIMITS}"),
        _type("too-many-headers", 431, "Too many header fields", "caller",
              "The request has more header fields than allowed.", f"Send fewer. {_LIMITS}"),
        _type("target-too-long", 414, "Request target too long", "caller",
              "The path and query together are longer than allowed.", f"Send data in a body. {_LIMITS}"),
        _type("body-too-large", 413, "Request body too large", "caller",
              "The body is larger than the listener or the route allows.",
              "Send less, or raise server.limits.body_bytes or the route's policies.body.max_bytes."),
        _type("request-timeout", 408, "Request timed out", "caller",
              "The request did not arrive completely in the time it has.", f"Send it faster. {_LIMITS}"),
        _type("https-required", 400, "HTTPS required", "caller",
              "This port speaks TLS, and the request came as plain HTTP.", "Use an https:// URL."),
        _type("unknown-method", 501, "Unknown method", "caller",
              "This method is not served; CONNECT is not, because this gateway is no forward proxy.",
              "Use a method of RFC 9110."),
        _type("unknown-coding", 501, "Unknown transfer coding", "caller",
              "Of the transfer codings only chunked is served.", "Send Transfer-Encoding: chunked alone."),
        _type("unknown-expectation", 417, "Unknown expectation", "caller",
              "Of the expectations only 100-continue is served.", "Leave the Expect header out."),
        _type("unsupported-version", 505, "HTTP version not supported", "caller",
              "This listener speaks HTTP/1.1 and HTTP/1.0.", "Speak HTTP/1.1."),
        _type("too-many-connections", 503, "Too many connections", "caller",
              "The gateway, or this client, has all the connections it may have.",
              f"Reuse connections and try again later. {_LIMITS}"),
        _type("loop-detected", 508, "Loop detected", "mesh",
              "The request has come through this gateway before: a cluster leads back to it.",
              "Look at the endpoints of the route's cluster at /api/v1/clusters."),
        # Filters
        _type("filter-refused", 403, "Refused by a filter", "caller",
              "A filter of the route, which is the operator's own code, does not let this request through. The status "
              "is the filter's choice.", "The detail is what the filter says."),
        _type("filter-failed", 500, "A filter failed", "mesh",
              "A filter of the route, which is the operator's own code, raised an error or returned what it cannot.",
              "The gateway's log names the filter, the kind of error and the line (filter_failed)."),
        _type("filter-timeout", 504, "A filter timed out", "mesh",
              "A filter of the route, which is the operator's own code, did not decide in the time it has.",
              "Make it faster, or raise its timeout in policies.filters; the gateway's log names it."),
        _type("filter-suspended", 503, "A filter is suspended", "mesh",
              "A filter of the route held up the gateway so long and so often that it is not asked for a while. Its "
              "requests are refused, because it may be what guards the route.",
              "Write what waits as `async def`; the gateway's log names the filter (filter_interrupted)."),
        # Upstreams
        _type("upstream-error", 502, "Upstream failed", "upstream",
              "The service behind the gateway, or another part of the mesh, failed.",
              "Look at its log: `toska logs SERVICE`, with the trace_id of this answer."),
        _type("upstream-unavailable", 503, "No upstream available", "upstream",
              "Nobody is there to serve the request: the cluster has no endpoint, or none can be reached.",
              "See with `toska status` whether the service runs and is passing; start an instance of it."),
        _type("upstream-connect-failed", 502, "Upstream cannot be reached", "upstream",
              "No connection to an endpoint could be made. The endpoint is out of rotation for a while.",
              "Check that the service listens on the address that it is registered with."),
        _type("upstream-tls-failed", 502, "No TLS with the upstream", "upstream",
              "There is a connection to the endpoint, and no TLS over it: its certificate cannot be believed, it does "
              "not want ours, or it speaks something else. The detail says which.",
              "Compare clusters.NAME.tls (ca, server_name, certificate) with the certificate that the endpoint shows."),
        _type("upstream-reset", 502, "Upstream closed the connection", "upstream",
              "The service closed the connection before it had answered, and the request could not be repeated: it is "
              "not idempotent, or it was repeated already.",
              "Look at the service's log for a crash or a restart; repeat the request if that does no harm."),
        _type("upstream-timeout", 504, "Upstream timed out", "upstream",
              "The service did not answer in the time that the route or the caller's deadline leaves it.",
              "Make it faster, or raise policies.timeout or policies.response_timeout of the route."),
        _type("upstream-overloaded", 503, "Upstream connection limit reached", "upstream",
              "A worker has all the requests, or connections and requests waiting for one, that it may have to this "
              "cluster; or none came free in time.",
              "Come again after Retry-After. Add instances, or raise the cluster's limits: max_requests, "
              "max_connections, max_pending, pending_timeout."),
        _type("bad-upstream-response", 502, "Upstream sent a malformed response", "upstream",
              "The service answered with something that is not an HTTP response that can be passed on.",
              "The detail names the rule that was broken; correct the service."),
        _type("target-refused", 502, "Upstream address refused", "mesh",
              "The cluster leads to an address that the mesh never connects to: link-local, cloud metadata, or one of "
              "the mesh's own management listeners.",
              "Correct the address that the instance registered, or the endpoint in the routing file."),
        _type("circuit-open", 503, "Circuit open", "upstream",
              "So many calls to this service failed lately that further ones fail at once, until a few have been tried "
              "again with success.",
              "Wait for the time in Retry-After; look at the service."),
        # Who may
        _type("unauthenticated", 401, "Credential required", "caller",
              "This needs a token, and there was none, or not one of this mesh.",
              "Send Authorization: Bearer with the token from admin.token (or join.token) in the mesh's home. "
              "The `toska` command finds it by itself."),
        _type("forbidden", 403, "Not allowed", "caller",
              "The token is known and does not allow this: the join token registers services and changes nothing else.",
              "Use the admin token."),
        _type("misdirected-request", 421, "Unknown host name", "caller",
              "A management listener answers only to host names that it knows, so that no web page can reach it "
              "through a name of its own (DNS rebinding).",
              "Use localhost or the listener's address, or add the name to TOSKA_ALLOWED_HOSTS."),
        _type("token-required", 401, "Token required", "caller",
              "The route asks for a token (policies.auth), and there was none.",
              "Send Authorization: Bearer with a token of the issuer that the route trusts."),
        _type("invalid-token", 401, "Token not accepted", "caller",
              "The token is not believed: the detail says why. It may be malformed, over, for somebody else, from "
              "somebody else, or not signed with a key of its issuer.",
              "Get a new token. If the detail speaks of the issuer, audience, type or algorithm, compare the token "
              "with policies.auth.jwt of the route."),
        _type("ambiguous-token", 400, "More than one token", "caller",
              "The field that holds the token stands twice, so it cannot be told which one is meant.",
              "Send it once."),
        _type("insufficient-scope", 403, "Token does not grant enough", "caller",
              "The token is good and lacks a scope or role that the route needs (policies.auth.scopes, .roles).",
              "WWW-Authenticate names the scopes; get a token that grants them."),
        _type("keys-unavailable", 503, "Issuer's keys unavailable", "mesh",
              "The keys that tokens of this issuer are checked with cannot be fetched, so nobody can tell whether this "
              "token is good.",
              "Try again after the time in Retry-After. /api/v1/gateway of the gateway's admin API says why they "
              "cannot be had."),
        # Management APIs
        _type("not-found", 404, "Not found", "caller",
              "There is no such thing.", "Look at the list it would be on; /docs shows every operation."),
        _type("invalid-input", 422, "Invalid input", "caller",
              "What was sent can be read, and something in it is wrong.",
              "`problems` names each field with the reason; correct all of them."),
        _type("malformed-json", 400, "Malformed JSON", "caller",
              "The body is not JSON.", "`problems` says where reading it stopped."),
        _type("unsupported-media-type", 415, "Unsupported media type", "caller",
              "The body is of a type that is not read here.", "Send application/json, unless the docs say otherwise."),
        _type("content-too-large", 413, "Content too large", "caller",
              "The body is larger than this operation takes.", "Send less at a time."),
        _type("conflict", 409, "Conflict", "caller",
              "The state is not what the request takes it for, or somebody else holds what it asks for.",
              "Read the current state and decide again."),
        _type("precondition-failed", 412, "Precondition failed", "caller",
              "If-Match or If-None-Match does not hold: somebody changed it in between.",
              "Read it again, with its new ETag, and repeat the change."),
        _type("lock-lost", 409, "Lock lost", "caller",
              "The lock under which this was done was taken away, or the registry could not be asked for as long as "
              "the lock's session lives.",
              "Undo or check what was done, and take the lock again."),
        _type("unknown-instance", 404, "Unknown instance", "caller",
              "There is no instance under this id: it was never registered, or its lease has lapsed.",
              "Register it again."),
        _type("unknown-check", 404, "Unknown check", "caller",
              "There is no check under this id, perhaps because its service was removed.",
              "Register the service again."),
        _type("session-refused", 400, "No such session", "caller",
              "The session is not there, or cannot be: its node or one of its checks is unknown or critical.",
              "Create a session on a node and checks that are well; one that has ended does not come back."),
        _type("event-refused", 400, "Event refused", "caller",
              "The event cannot be fired; the detail says why, in Consul's words.",
              "Correct its name, its filters or its payload."),
        _type("query-refused", 400, "Query refused", "caller",
              "The prepared query is not there, or cannot be; the detail says why, in Consul's words.",
              "Correct the query, or list those that there are."),
        _type("snapshot-damaged", 400, "Snapshot damaged", "caller",
              "The archive is not whole, or not one of this registry. Nothing was restored.",
              "Send the archive as it was saved."),
        _type("registry-full", 503, "Registry is full", "mesh",
              "The registry holds as many instances as the operator allows; those that are there can still be changed.",
              "Deregister what is gone, or raise the registry's limit of instances."),
        _type("store-unavailable", 503, "State cannot be written", "mesh",
              "The service cannot write its state, and does not confirm what it could lose.",
              "Look at the disk of TOSKA_HOME: space, permissions, health."),
        # Routing
        _type("invalid-routing", 422, "Invalid routing", "caller",
              "A routing file, route or cluster is wrong, and was refused whole. What held before still holds.",
              "`problems` names everything that is wrong, each with its path in the document and its line."),
        _type("snapshot-rejected", 422, "Snapshot refused", "caller",
              "The gateway cannot serve this routing, and goes on with the one before.",
              "`problems` names everything that is wrong; correct the routes they come from."),
        _type("owned-elsewhere", 409, "Comes from another source", "caller",
              "This route or cluster is in the routing file, or made by the mesh, and the API cannot change it.",
              "Change it where it comes from; `source` says where."),
        _type("cluster-in-use", 409, "Cluster in use", "caller",
              "Routes or policies lead to this cluster, so it cannot be taken away.",
              "Change those first; they are named."),
        _type("policy-in-use", 409, "Policy in use", "caller",
              "Routes name this policy, so it cannot be taken away.", "Change those routes first; they are named."),
        _type("rollout-under-way", 409, "Rollout under way", "caller",
              "The rollout, or another one or an experiment on the same route, has to come to its end first.",
              "Roll it back, promote it or wait; GET /api/v1/rollouts shows how far each is."),
        _type("rollout-not-under-way", 409, "Rollout is not under way", "caller",
              "The rollout is in no state for this: it has not begun, is over, or is not paused.",
              "Look at its phase; PUT begins one anew that is over."),
        _type("experiment-under-way", 409, "Experiment under way", "caller",
              "The experiment, or another one or a rollout on the same routes, has to come to its end first.",
              "Stop it, or wait until its time is over."),
        _type("experiment-over", 409, "Experiment is over", "caller",
              "The experiment has ended already, so there is nothing to stop.", "`reason` of its status says why."),
        _type("database-unavailable", 503, "Database unavailable", "mesh",
              "The database of the service does not answer. What was known goes on, and nothing is changed.",
              "Look at the database that TOSKA_DATABASE_URL names, then ask again; `detail` says what it said."),
        _type("no-endpoint-to-select", 503, "No endpoint to select", "upstream",
              "The cluster or service has no endpoint that is well, or all that it has are in exclude.",
              "See /api/v1/clusters/NAME and the registry for its instances; leave out exclude to try one again."),
        _type("no-snapshot-yet", 503, "No snapshot yet", "mesh",
              "The router has not heard from the registry since it started, and gives out nothing that is half known.",
              "Wait a moment; if it lasts, see whether discovery runs."),
        _type("delta-mismatch", 500, "Delta does not fit", "mesh",
              "A change of the routing does not fit what it should be applied to.",
              "Nothing: the gateway asks for everything anew."),
        _type("renewal-failed", 500, "Workers not renewed", "mesh",
              "A new worker process of the gateway does not serve, so the one that it should have succeeded goes on.",
              "The log says why; the workers that had been replaced before it serve."),
        _type("no-worker", 503, "No worker running", "mesh",
              "The gateway has no process that could serve, or say how it would.",
              "It starts new ones by itself; if it lasts, its log says why they end."),
        _type("openapi-document-refused", 502, "OpenAPI document refused", "upstream",
              "A service's OpenAPI document cannot be shown with the others.",
              "/api/v1/openapi says why; correct the document that the service serves."),
        _type("no-openapi-document", 503, "No OpenAPI document", "upstream",
              "No live instance of the service says where its OpenAPI document is.",
              "Register it with toska-openapi in its metadata; the SDK does so by itself."),
        # Events
        _type("events-unavailable", 503, "Events unavailable", "upstream",
              "What carries events is away, or did not confirm in time; the call's events may or may not be published.",
              "Try again with the same source and id: who keeps an inbox drops doubles."),
        _type("event-log-full", 507, "Event log full", "mesh",
              "The event log is at its bound (TOSKA_EVENTS_MAX_BYTES), or its disk is full. Nothing was published.",
              "See which group is behind (GET /api/v1/events/groups): run it or delete it, or give the log more room."),
        _type("event-too-large", 413, "Event too large", "caller",
              "An event is over the limit of this mesh. Nothing of the call was published.",
              "Publish a reference to the data instead, or raise TOSKA_EVENTS_MAX_EVENT_BYTES."),
        _type("publishing-refused", 409, "Publishing refused", "caller",
              "The topic takes no such event. Nothing of the call was published.",
              "The detail says what does not fit; publish a version of the payload that its readers understand."),
        _type("invalid-payload", 422, "Invalid payload", "caller",
              "The data are not what the topic carries.",
              "problems names each field and what is wrong with it."),
        _type("request-rejected", 502, "Request rejected", "upstream",
              "Whoever was asked by an event cannot answer it.",
              "The detail is what they said."),
        _type("unknown-topic", 404, "Unknown topic", "caller",
              "Nobody created this topic or published to it.",
              "GET /api/v1/events/topics lists those that there are."),
        _type("unknown-group", 404, "Unknown group", "caller",
              "No group has this name.",
              "GET /api/v1/events/groups lists those that there are."),
        _type("unknown-dead-letter", 404, "Unknown dead letter", "caller",
              "No dead letter has this id: it was driven again, or purged.",
              "List them again."),
        _type("events-topology-conflict", 503, "Events topology conflict", "upstream",
              "A queue or exchange of RabbitMQ is there, and was declared otherwise than this release does.",
              "The detail names it: empty and delete it, or run the release that made it."),
        _type("events-credentials-refused", 503, "Events credentials refused", "upstream",
              "RabbitMQ does not let this user in, or not to do this.",
              "Look at the user's password and permissions there, and at TOSKA_EVENTS_URL here."),
        _type("unknown-schema", 404, "Unknown schema", "caller",
              "Nobody proposed a schema for this topic.",
              "GET /api/v1/events/schemas lists those that there are."),
        _type("unreadable-schema", 500, "Unreadable schema", "mesh",
              "What stands under a topic's key in the registry is not a schema of this release.",
              "Delete the schema, and let its publishers propose it anew; or run the release that wrote it."),
        _type("unknown-webhook", 404, "Unknown webhook", "caller",
              "Nothing is subscribed under this id.", "GET /api/v1/events/subscriptions lists those that there are."),
        _type("unreadable-secret", 500, "Unreadable secret", "mesh",
              "A webhook's secret was sealed under another admin token.",
              "Subscribe anew with the secret, or put the old admin token back."),
        # Sagas
        _type("unknown-saga", 404, "No such saga", "caller",
              "There is no saga of this id.", "List them: GET /api/v1/sagas of the service that runs them."),
        _type("saga-id-taken", 409, "The saga's id is taken", "caller",
              "The id belongs to a saga that was started otherwise: of another kind, or with another input.",
              "Use another id; the same one with the same input is the same saga."),
        _type("illegal-saga-state", 409, "Not in this state of the saga", "caller",
              "The saga is not in a state in which this can be done.", "Look at its state first."),
        _type("saga-failed", 502, "The saga did not complete", "upstream",
              "A saga that was waited for was undone, or is stuck.",
              "Its history says at which step and why; one that is stuck can be resumed."),
        _type("sagas-closed", 503, "Sagas are not open", "upstream",
              "The process runs no sagas now: it has not started, or it is stopping.", "Ask again."),
        # Bugs and settings
        _type("configuration-error", 500, "Wrong configuration", "mesh",
              "A setting is wrong.", "The detail names the variable and what to do."),
        _type("internal-error", 500, "Internal error", "mesh",
              "The mesh met something that it did not foresee: a bug.",
              "Please report it, with the log lines of the trace_id of this answer."),
    )
}  # fmt: skip


def find_problem_type(code: str) -> ProblemType | None:
    """The type of this code; one that is named after a status is explained by that."""
    known = PROBLEM_TYPES.get(code)
    if known is not None:
        return known
    status = next((item for item in HTTPStatus if item >= 400 and item.phrase.lower().replace(" ", "-") == code), None)
    if status is None:
        return None
    fault: Fault = "caller" if status < 500 else "mesh"
    meaning = f"{status.description or status.phrase}."
    return _type(code, status.value, status.phrase, fault, meaning, "The detail of the answer says more.")
