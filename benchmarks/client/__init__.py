"""What a call to another service costs the caller: plain HTTP clients beside the SDK's `mesh.client`."""
