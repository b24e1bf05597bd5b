"""Access control: known host names, an optional token, and security headers."""

import hmac
import ipaddress
import socket
from urllib.parse import parse_qs, urlencode

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse, RedirectResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lorascope.web.sockets import is_loopback

_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; font-src 'self'; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "content-security-policy": _POLICY,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
}
COOKIE = "lorascope_token"
_SAFE_METHODS = ("GET", "HEAD")


class Guard:
    """Middleware that refuses unknown host names and, if a token is set, requests without it; adds the headers.

    Another site can point its own host name at this address (DNS rebinding). A browser sends that name along, so only
    numeric addresses, ``localhost`` and the given names are answered.

    Args:
        app: the application to protect.
        names: host names that are answered.
        token: token that visitors need; None on loopback.
    """

    def __init__(self, app: ASGIApp, *, names: tuple[str, ...] = (), token: str | None = None) -> None:
        self._app = app
        self._names = {"localhost", *(name.lower() for name in names)}
        self._token = token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)  # a file of a study has a stricter policy of its own
            await send(message)

        await (self._refusal(scope) or self._app)(scope, receive, send_with_headers)

    def _refusal(self, scope: Scope) -> ASGIApp | None:
        """Return the response that refuses or redirects a request; None where it is allowed."""
        headers = Headers(scope=scope)
        if not self._is_known(headers.get("host", "")):
            return PlainTextResponse("This page is not served under that host name.\n", status_code=421)
        if scope["method"] not in _SAFE_METHODS:
            return PlainTextResponse("This page can only be read.\n", status_code=405, headers={"allow": "GET, HEAD"})
        if self._token is None:
            return None
        given = parse_qs(scope["query_string"].decode("latin-1"), keep_blank_values=True)
        if self._is_token(given.pop("token", [""])[-1]):
            query = urlencode(given, doseq=True)
            path = "/" + scope["path"].lstrip("/")  # two slashes would redirect to another host
            answer = RedirectResponse(path + (f"?{query}" if query else ""), status_code=303)
            answer.set_cookie(_cookie_name(scope), self._token, httponly=True, samesite="strict")
            return answer
        if self._is_token(_cookie(headers.get("cookie", ""), _cookie_name(scope))):
            return None
        text = "Open this page with the address that lorascope printed: it holds the token.\n"
        return PlainTextResponse(text, status_code=401)

    def _is_token(self, given: str) -> bool:
        return self._token is not None and hmac.compare_digest(given.encode(), self._token.encode())

    def _is_known(self, host: str) -> bool:
        name = host.rsplit(":", 1)[0] if not host.endswith("]") else host
        name = name.strip("[]").lower()
        if name in self._names:
            return True
        try:
            address = ipaddress.ip_address(name)
        except ValueError:
            return False
        # Without a token only loopback addresses are served.
        return address.is_loopback or self._token is not None


def own_names(host: str) -> tuple[str, ...]:
    """Return the host names of a machine that listens on ``host``."""
    return () if is_loopback(host) else (host, socket.gethostname())


def _cookie_name(scope: Scope) -> str:
    """Name the cookie by the port: a browser sends a host's cookies to all its ports, and each page has a token."""
    server = scope.get("server")
    return f"{COOKIE}_{server[1]}" if server else COOKIE


def _cookie(header: str, name: str) -> str:
    """Return a cookie of a Cookie header; empty where it is missing."""
    pairs = (part.strip().partition("=") for part in header.split(";"))
    return next((value.strip('"') for key, _, value in pairs if key == name), "")
