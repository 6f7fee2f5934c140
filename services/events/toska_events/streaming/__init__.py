"""Events as they come, for those who ask over HTTP, WebSocket or gRPC."""
