"""One OpenAPI document over all services of the mesh, of those operations that a caller can reach through the gateway.

    registry, routes ──▶ catalog ──▶ fetch (from a live instance)
                            └──▶ merge ──▶ rewrite (one service's document: names, references, 3.0 to 3.1)
                                              └──▶ reach (under which path the gateway takes an operation)

`grammar`, `reach`, `rewrite` and `merge` are pure.
"""
