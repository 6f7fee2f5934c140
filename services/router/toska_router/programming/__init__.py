"""Programs Envoys and gRPC's clients with the router's snapshots, over xDS.

`xds` is the protocol and knows nothing of the mesh; this is what the mesh has to say over it, and to whom.
"""
