"""Discovery over gRPC. Only `adding` is for others, and it loads gRPC when it is called."""
