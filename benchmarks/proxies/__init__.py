"""The proxies that are compared, each as its own manual would have it at an edge, and all doing the same work.

Every one of them: the same two upstream addresses in turn over kept connections, one thread of work, the same routes,
`X-Forwarded-For`, `X-Forwarded-Proto` and a request id set, no access log. What each does beyond that is in
`docs/performance.md`.
"""
