"""What a hostile client writes: other spellings of a path, and requests that two readers might read differently."""

from __future__ import annotations

from collections.abc import Callable, Mapping

# Other ways to write a path, some of which some server, proxy or framework takes for the same.
SPELLINGS: Mapping[str, Callable[[str], str]] = {
    "double slash": lambda path: f"/{path}",
    "slash behind": lambda path: f"{path}/",
    "double slashes inside": lambda path: path[0] + path[1:].replace("/", "//") + "//",
    "encoded letter": lambda path: f"/%{ord(path[1:2] or 'x'):02x}{path[2:]}",
    "encoded slash": lambda path: f"/{path[1:].replace('/', '%2f')}%2f",
    "twice encoded": lambda path: f"/%25{ord(path[1:2] or 'x'):02x}{path[2:]}",
    "dots": lambda path: f"/health/..{path}",
    "encoded dots": lambda path: f"/health/%2e%2e{path}",
    "dot": lambda path: f"/.{path}",
    "dot behind": lambda path: f"{path}.",
    "backslash": lambda path: f"{path[:1]}\\{path[1:]}",
    "case": lambda path: path.upper(),
    "semicolon": lambda path: f"{path};a=b",
    "encoded nul": lambda path: f"{path}%00",
    "encoded space": lambda path: f"{path}%20",
    "encoded newline": lambda path: f"{path}%0a",
    "encoded question mark": lambda path: f"{path}%3f",
    "overlong": lambda path: f"{path}%c0%af",
    "no slash": lambda path: path[1:] or "*",
}

# Other ways that the HTTP server itself takes for the same, before any application sees them.
EQUALS: Mapping[str, Callable[[str], str]] = {
    "absolute": lambda path: f"http://pod{path}",
    "absolute with a user": lambda path: f"http://user:secret@elsewhere:1{path}",
    "absolute of another scheme": lambda path: f"ftp://pod{path}",
    "fragment": lambda path: f"{path}#x",
    "query": lambda path: f"{path}?x=/genrm/door",
}


def _request(line: str, *headers: str) -> str:
    return "\r\n".join([f"{line} HTTP/1.1", "Host: pod", *headers, "", ""])


def _last(line: str, *headers: str) -> str:
    """A request after which the server hangs up, so that nobody waits for more."""
    return _request(line, "Connection: close", *headers)


_GET, _SCORE, _SHUT, _LOOK = "GET %(open)s", "POST %(score)s", "POST %(shut)s", "GET /genrm/door"
_CHUNKED = "Transfer-Encoding: chunked"
_END = "0\r\n\r\n"
_HIDDEN = _last(_SHUT, "Content-Length: 0")

# To be filled with: open, a route for everybody; score, one for clients; shut, one that changes the engine; token, the
# operator's header; key, a client's. Where the operator's token is in one, it is where it must not count.
SMUGGLING: Mapping[str, str] = {
    "length and chunks": _request(_SCORE, "Content-Length: 4", _CHUNKED) + _END + _HIDDEN,
    "chunks and length": _request(_SCORE, _CHUNKED, "Content-Length: 500") + _END + _HIDDEN,
    "no chunks": _request(_SCORE, "Content-Length: 2", "Transfer-Encoding: xchunked") + "{}" + _HIDDEN,
    "twice chunks": _request(_SCORE, _CHUNKED, "Transfer-Encoding: identity") + _END + _HIDDEN,
    "chunks behind a tab": _request(_SCORE, "Content-Length: 2", "Transfer-Encoding:\tchunked") + "{}" + _HIDDEN,
    "space before the colon": _request(_SCORE, "Content-Length : 2") + "{}" + _HIDDEN,
    "two lengths": _request(_SCORE, "Content-Length: 2", "Content-Length: 0") + "{}" + _HIDDEN,
    "a list of lengths": _request(_SCORE, "Content-Length: 2, 0") + "{}" + _HIDDEN,
    "a signed length": _request(_SCORE, "Content-Length: +2") + "{}" + _HIDDEN,
    "bare newlines": (_request(_GET) + _HIDDEN).replace("\r\n", "\n"),
    "a folded request": _request(_GET, "X: a").removesuffix("\r\n") + " " + _HIDDEN,
    "a huge chunk": _request(_SCORE, _CHUNKED) + "ffffffffffffffff1\r\n" + _HIDDEN,
    "a chunk's extension": _request(_SCORE, _CHUNKED) + "0;\n\r\n\r\n" + _HIDDEN,
    "a pipeline": _request(_GET, "Content-Length: 0") + _HIDDEN,
    "the token of the request before": _request(_LOOK, "%(token)s") + _HIDDEN,
    "the token of the request behind": _HIDDEN.replace("Connection: close\r\n", "") + _last(_LOOK, "%(token)s"),
    "a folded token": _last(_SHUT, "X: a\r\n %(token)s"),
    "a token behind a nul": _last(_SHUT, "X: \0", "%(token)s"),
    "a token in the query": _last(_SHUT + "?%(query)s"),
    "a token in a cookie": _last(_SHUT, "Cookie: %(token)s", "Proxy-%(token)s", "X-%(token)s"),
    "HTTP/0.9": "POST %(shut)s\r\n\r\n",
    "HTTP/2": "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "an upgrade to HTTP/2": _request(
        _GET, "Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA"
    )
    + _HIDDEN,
    "a tunnel": _request("CONNECT pod:80") + _HIDDEN,
    "a line break in the path": _last(_SHUT + "%%0d%%0aAuthorization:%%20x"),
    "another method by header": _last("GET %(shut)s", "X-HTTP-Method-Override: POST", "X-Method: POST"),
    "another path by header": _last(_GET, "X-Original-URL: %(shut)s", "X-Rewrite-URL: %(shut)s"),
    "another root by header": _last(_GET, "X-Forwarded-Prefix: %(shut)s", "X-Script-Name: %(shut)s"),
    "a client from within": _last(_SHUT, "X-Forwarded-For: 127.0.0.1", "Forwarded: for=127.0.0.1"),
    "a long path": _last("GET /" + "a" * 70_000),
    "many headers": _last(_GET, *["X: y"] * 5_000),
    "noise": "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
    "half a body": _request(_SCORE, "%(key)s", "Content-Length: 999") + '{"mod',
}
