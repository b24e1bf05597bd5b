"""The socket of the page, and the errors where it cannot be opened."""

import errno
import socket

import pytest

from lorascope.errors import InputError
from lorascope.web.sockets import address, listen, make_token


def test_port_0_finds_a_free_port() -> None:
    with listen("127.0.0.1", 0) as listener:
        port = listener.getsockname()[1]
        assert address(listener, "127.0.0.1", None) == f"http://127.0.0.1:{port}/"
        assert address(listener, "0.0.0.0", "abc") == f"http://{socket.gethostname()}:{port}/?token=abc"
        assert address(listener, "::1", None) == f"http://[::1]:{port}/"
        with pytest.raises(InputError, match=f"port {port} on 127.0.0.1 is in use"):
            listen("127.0.0.1", port)


@pytest.mark.parametrize("port", [-1, 65536, 10**9])
def test_invalid_port_is_refused(port: int) -> None:
    with pytest.raises(InputError, match=f"there is no port {port}"):
        listen("127.0.0.1", port)


@pytest.mark.parametrize("host", ["not an address", "999.1.1.1", "x" * 300])
def test_unknown_host_is_refused(host: str) -> None:
    with pytest.raises(InputError, match="is no address of this machine"):
        listen(host, 0)


def test_host_of_another_machine_is_refused() -> None:
    with pytest.raises(InputError, match=r"cannot listen on 192\.0\.2\.1"):
        listen("192.0.2.1", 0)


def test_privileged_port_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def bind(self: socket.socket, place: object) -> None:
        raise OSError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(socket.socket, "bind", bind)
    with pytest.raises(InputError, match=r"port 80 on 127\.0\.0\.1 is not allowed"):
        listen("127.0.0.1", 80)


def test_token_is_needed_for_a_wider_address_only() -> None:
    assert make_token("127.0.0.1") is None
    first, second = make_token("0.0.0.0"), make_token("0.0.0.0")
    assert first != second
    assert len(first) >= 32
