"""Tokens at the door: a gate that verifies them, a memory of those that were, and the issuers' keys in this worker.

    gate ──▶ token_places    where a token stands in a request's head
      │ ───▶ verifier        remembers what was verified, asks toska_common.jwt for the rest
      │         └──▶ key_rings    an issuer's keys, and who waits until the parent has newer ones
      └────▶ claim_fields    what the upstream is told of it

Loaded, with `cryptography`, only where a route asks for tokens.
"""
