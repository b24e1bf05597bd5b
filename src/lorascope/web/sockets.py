"""Socket, address and token of the page. Imports nothing heavy: a run opens the socket, and its memory is measured."""

import errno
import ipaddress
import os
import secrets
import socket

from lorascope.errors import InputError

HOST = "127.0.0.1"
PORT = 8501
_MAX_PORT = 65535
_BACKLOG = 64


def listen(host: str, port: int) -> socket.socket:
    """Open the socket that the page is served on.

    Raises:
        InputError: the address or the port cannot be used.
    """
    if not 0 <= port <= _MAX_PORT:
        raise InputError(f"there is no port {port}", remedy=f"give a --port from 0 to {_MAX_PORT}")
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise InputError(f"{host} is no address of this machine: {error}", remedy="give another --host") from error
    family, kind, protocol, _, socket_address = found[0]
    listener = socket.socket(family, kind, protocol)
    try:
        if os.name == "posix":
            # Allows a port whose last connections are still closing, but not one that is in use.
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(socket_address)
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        raise _refusal(host, port, error) from error
    return listener


def _refusal(host: str, port: int, error: OSError) -> InputError:
    if error.errno == errno.EADDRINUSE:
        return InputError(f"port {port} on {host} is in use", remedy="give another --port, or 0 for any that is free")
    if error.errno in (errno.EACCES, errno.EPERM):
        return InputError(f"port {port} on {host} is not allowed", remedy="give a --port of 1024 or more")
    return InputError(f"cannot listen on {host}: {error.strerror}", remedy="give an address of this machine as --host")


def make_token(host: str) -> str | None:
    """Return a random token; None for a loopback address, which needs none."""
    return None if is_loopback(host) else secrets.token_urlsafe(24)


def address(listener: socket.socket, host: str, token: str | None) -> str:
    """Return the URL of the page."""
    port = listener.getsockname()[1]
    name = socket.gethostname() if host in ("0.0.0.0", "::") else host  # noqa: S104 - compared, not bound
    shown = f"[{name}]" if ":" in name else name
    return f"http://{shown}:{port}/" + (f"?token={token}" if token else "")


def is_loopback(host: str) -> bool:
    """Return True if an address is reachable from this machine only."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
