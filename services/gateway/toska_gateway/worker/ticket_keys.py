"""Session tickets that any worker can read, so that a client resumes its session wherever it comes back to.

Python's ssl makes keys of its own for each context and has no way to set them, so OpenSSL's is called directly. That
needs the address of a context's SSL_CTX, which stands behind the object header in every CPython that this runs on.
Where anything is not as it is known to be, tickets stay those of one worker, and a client that comes to another does a
whole handshake.
"""

import ctypes
import functools
import hashlib
import platform
import ssl
import sys
from typing import Any, Final

_SET_TICKET_KEYS: Final = 59  # SSL_CTRL_SET_TLSEXT_TICKET_KEYS of openssl/ssl.h
_KEY_BYTES: Final = 80
"""A name of 16 bytes, a key for HMAC and one for AES of 32 each (OpenSSL 1.1.0 and later)."""
_KNOWN_LAYOUT: Final = ((3, 11), (3, 14))
"""Oldest and newest CPython whose `PySSLContext` is known to begin with its SSL_CTX."""


@functools.cache
def _library() -> Any:
    """The libssl that Python itself uses; `None` if it cannot be called."""
    known = _KNOWN_LAYOUT[0] <= sys.version_info[:2] <= _KNOWN_LAYOUT[1]
    if platform.python_implementation() != "CPython" or not known or not ssl.OPENSSL_VERSION.startswith("OpenSSL "):
        return None
    try:
        import _ssl  # pyright: ignore[reportMissingModuleSource] - built into CPython, without stubs

        library: Any = ctypes.CDLL(getattr(_ssl, "__file__", None))
        library.SSL_CTX_get_options.restype = ctypes.c_uint64
        library.SSL_CTX_get_options.argtypes = [ctypes.c_void_p]
        library.SSL_CTX_ctrl.restype = ctypes.c_long
        library.SSL_CTX_ctrl.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_long, ctypes.c_char_p]
    except (ImportError, OSError, AttributeError, TypeError):
        return None  # linked into the interpreter, or without these symbols
    return library


def set_ticket_keys(context: ssl.SSLContext, secret: bytes, purpose: bytes) -> bool:
    """Derive ticket keys from a secret that all workers share; tells whether the context took them.

    Args:
        context: Of a listener.
        secret: At least 32 random bytes.
        purpose: What a session is good for. Contexts with different demands on clients get different keys, so that a
            session begun where no certificate is asked for opens nothing where one is.
    """
    library = _library()
    if library is None:
        return False
    pointer = ctypes.c_void_p.from_address(id(context) + object.__basicsize__).value
    if pointer is None or library.SSL_CTX_get_options(pointer) != int(context.options) & 0xFFFFFFFFFFFFFFFF:
        return False
    if library.SSL_CTX_ctrl(pointer, _SET_TICKET_KEYS, 0, None) != _KEY_BYTES:  # without keys it tells their size
        return False
    digest = hashlib.sha256(purpose).digest()
    keys = hashlib.shake_256(len(secret).to_bytes(4, "big") + secret + digest).digest(_KEY_BYTES)
    return library.SSL_CTX_ctrl(pointer, _SET_TICKET_KEYS, _KEY_BYTES, keys) == 1
