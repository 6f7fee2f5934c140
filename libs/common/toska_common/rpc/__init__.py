"""What gRPC services of the mesh share. Only `server` may be imported before gRPC is wanted."""
