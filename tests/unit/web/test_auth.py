"""Access to the page: names of this machine, or a token."""

import pytest
from starlette.types import Receive, Scope, Send

from lorascope.web.auth import COOKIE, HEADERS, Guard, own_names
from lorascope.web.sockets import is_loopback
from support.asgi import ask


async def inner(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
    await send({"type": "http.response.body", "body": b"inside", "more_body": False})


@pytest.mark.parametrize("host", ["127.0.0.1:8501", "localhost:8501", "LOCALHOST", "[::1]:8501", "127.0.0.1", "[::1]"])
def test_guard_answers_names_of_this_machine(host: str) -> None:
    assert ask(Guard(inner), "/", headers={"host": host}).text == "inside"


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8501", "192.168.1.5:8501", "127.0.0.1.evil.example", ""]
)
def test_guard_refuses_other_names(host: str) -> None:
    """With DNS rebinding, another site's host name points at this address."""
    answer = ask(Guard(inner), "/", headers={"host": host})
    assert answer.status == 421
    assert "inside" not in answer.text


def test_guard_adds_the_policy_to_every_answer() -> None:
    for host in ("localhost", "evil.example"):
        answer = ask(Guard(inner), "/", headers={"host": host})
        assert {name: answer.headers[name] for name in HEADERS} == HEADERS
    policy = HEADERS["content-security-policy"]
    assert "unsafe" not in policy
    assert "http:" not in policy
    assert policy.startswith("default-src 'none'")


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"])
def test_guard_refuses_writing_methods(method: str) -> None:
    assert ask(Guard(inner), "/", method=method).status == 405


def test_guard_asks_for_the_token_on_a_wider_address() -> None:
    guard = Guard(inner, names=("box.lan",), token="secret")
    name = f"{COOKIE}_8501"
    for cookie in ("", f"{name}=wrong", "=;;= ,", f"{name}=", f"{COOKIE}_8502=secret", f"x{name}=secret"):
        headers = {"cookie": cookie} if cookie else {}
        assert ask(guard, "/", headers={"host": "192.168.1.5:8501", **headers}).status == 401
    assert ask(guard, "/?token=", headers={"host": "box.lan"}).status == 401
    assert ask(guard, "/?token=séc", headers={"host": "box.lan"}).status == 401
    assert ask(guard, "/?token=secret", headers={"host": "evil.example"}).status == 421
    answer = ask(guard, "/compare?study=a&token=secret&study=b", headers={"host": "box.lan:8501"})
    assert (answer.status, answer.headers["location"]) == (303, "/compare?study=a&study=b")
    cookie = answer.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=strict" in cookie
    assert cookie.startswith(f"{name}=secret")
    for other in ("other=1", 'theme={"a":1}', "a b=c\xe9"):
        inside = ask(guard, "/", headers={"host": "box.lan", "cookie": f"{other}; {name}=secret"})
        assert inside.text == "inside", other


def test_loopback_addresses() -> None:
    assert all(map(is_loopback, ("127.0.0.1", "127.3.2.1", "::1", "localhost")))
    assert not any(map(is_loopback, ("0.0.0.0", "::", "192.168.1.5", "box.lan", "")))
    assert own_names("127.0.0.1") == ()
    assert "0.0.0.0" in own_names("0.0.0.0")
