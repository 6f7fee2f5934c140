"""Verifying JSON Web Tokens (RFC 7519) as RFC 8725 wants it; nothing here issues one, does I/O or knows the time.

    bytes ── compact ──▶ header, claims ── claims ──▶ plausible ── key_set ──▶ key ── keys ──▶ verified

What is refused is refused as early as it can be: a token that is not for us, or is over, costs no signature. The order
gives nothing away, since whoever has the token can read all that is looked at.

Written on `cryptography` alone. A general library has to take what the RFCs allow, and this is the door: names that
stand twice in a JSON object, padded or non-canonical base64url, keys that a token brings along, keys that do not fit
the pinned algorithm, and tokens of another kind are all refused here before any mathematics.
"""
