"""The mesh's gRPC contracts, and the code that protoc makes of them: `tools/protos` makes it anew.

They need the extra `toska-common[grpc]`, and nothing else of this library imports them.
"""
