"""Discovery over gRPC. Only `server.run` is for others, and it loads gRPC when it is called."""
