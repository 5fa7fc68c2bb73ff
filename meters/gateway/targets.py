"""Where a call may go: the gateway's URL forms, and the one check that all of them end in. Pure.

    /v1/forward?u=<absolute URL>         encoded or raw; also /v1/forward/?u=
    /v1/forward/<provider>/<rest>        e.g. /v1/forward/openai/v1/chat/completions
    /v1/forward/https://<host>/<path>    also with the slashes merged to https:/host

`resolve` reads the form, `_allowed` decides. Nothing is normalised into something allowed but what
known SDKs are known to do to their base address: a slash lost after the base, a `/v1` said twice.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from urllib.parse import quote, unquote

from billing import errors
from meters.gateway import providers
from meters.gateway.providers import Provider

LONGEST_URL = 8192
# Query parameters of the gateway's own; never sent on.
_OURS = ("u", "key", "metadata")

_HOST = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)*")
# Characters that a path may hold (RFC 3986).
_PATH = re.compile(r"[A-Za-z0-9\-._~!$&'()*+,;=:@/%]*")
_IN_QUERY = "-._~!$&'()*+,;=:@/%?"
_CONTROL = re.compile(r"[\x00-\x1f\x7f\\]|%(?:[01][0-9a-f]|7f)", re.IGNORECASE)
_VERSION_TWICE = re.compile(r"^(/v\d+(?:beta|alpha)?)\1(?=/|$)")
_DEFAULT_PORTS = {"https": 443, "http": 80}


@dataclass(frozen=True, slots=True)
class Target:
    """An allowed address: whose it is, and path and query as they are sent."""

    provider: Provider
    path: str
    query: str

    @property
    def url(self) -> str:
        """The address as it is called."""
        row = self.provider
        port = "" if row.port == _DEFAULT_PORTS[row.scheme] else f":{row.port}"
        query = f"?{self.query}" if self.query else ""
        return f"{row.scheme}://{row.host}{port}{self.path}{query}"


def resolve(path: str, query: str, *, own: Iterable[Provider] = ()) -> Target:
    """The target of a call to `/v1/forward...`; `path` and `query` as they came, still encoded.

    `own` are the merchant's rows; they stand before the table.

    Raises:
        billing.errors.Invalid: no target in it.
        billing.errors.Forbidden: `target_not_allowed`, whatever is wrong with it.
    """
    rows = (*own, *providers.TABLE)
    rest = path.removeprefix("/v1/forward")
    inner, others = _split_query(query)
    if rest in ("", "/"):
        if inner is None:
            raise errors.Invalid(
                "Say where to: /v1/forward?u=https://api.openai.com/v1/chat/completions, or "
                "/v1/forward/openai/v1/chat/completions.",
                code="target_missing",
                param="u",
            )
        return _allowed(_address(inner), others, rows, repair=True)
    if not rest.startswith("/"):
        raise _refused("It is no path of the gateway.")
    rest = rest[1:]
    scheme = re.match(r"(https?):/{1,2}(?=[^/])", rest, re.IGNORECASE)
    if scheme:
        return _allowed(f"{scheme[1].lower()}://{rest[scheme.end() :]}", others, rows)
    if re.match(r"https?%3a", rest, re.IGNORECASE):
        return _allowed(_address(rest), others, rows)
    slug, _, tail = rest.partition("/")
    row = next((row for row in rows if row.slug.lower() == slug.lower()), None)
    if row is None:
        raise _refused(f"There is no provider {slug[:40]!r}.")
    return _within(row, f"/{tail}", others)


def by_path(row: Provider, path: str, query: str) -> Target:
    """A target on a provider that was chosen otherwise (by model), path in full."""
    _, others = _split_query(query)
    return _within(row, path, others)


def _split_query(query: str) -> tuple[str | None, str]:
    """The value of `u` and what else belongs to the target, both as they came."""
    target: str | None = None
    others: list[str] = []
    for part in query.split("&"):
        name, _, value = part.partition("=")
        if name == "u" and target is None:
            target = value
        elif part and unquote(name).lower() not in _OURS:
            others.append(part)
    return target, "&".join(others)


def _address(text: str) -> str:
    """An address in a parameter: raw, or encoded once."""
    if not re.match(r"https?:/", text, re.IGNORECASE):
        try:
            text = unquote(text, errors="strict")
        except UnicodeDecodeError as error:
            raise _refused("It is no text.") from error
    return text


def _allowed(url: str, others: str, rows: Sequence[Provider], *, repair: bool = False) -> Target:
    """THE check: scheme, host, port and path prefix of an absolute URL against the rows.

    `others` are query parameters from outside the URL; they join its own.
    """
    match = re.fullmatch(r"(https?)://([^/?#]*)([^?#]*)(?:\?([^#]*))?", url, re.IGNORECASE)
    if match is None or len(url) > LONGEST_URL:
        raise _refused("It is no absolute http(s) address.")
    scheme, authority, path, own_query = match[1].lower(), match[2], match[3], match[4] or ""
    host, port = _authority(authority, scheme)
    mine = [row for row in rows if (row.scheme, row.host, row.port) == (scheme, host, port)]
    if not mine:
        raise _refused("No provider has this address.")
    prefixes = sorted(
        ((prefix, row) for row in mine for prefix in row.paths),
        key=lambda pair: -len(pair[0]),
    )
    if repair:
        path = _repaired(path, [prefix for prefix, _ in prefixes])
    path = _VERSION_TWICE.sub(r"\1", path)
    _check_path(path)
    query = "&".join(part for part in (_strip(own_query), others) if part)
    if _CONTROL.search(query):
        raise _refused("Its query holds control characters.")
    query = quote(query, safe=_IN_QUERY)
    for prefix, row in prefixes:
        if _is_within(path, prefix):
            return Target(row, path, query)
    raise _refused("No provider has this path.")


def _within(row: Provider, path: str, others: str) -> Target:
    """A target named by its provider: the path from the host's root, or from the base."""
    path = _VERSION_TWICE.sub(r"\1", path)
    if not any(_is_within(path, prefix) for prefix in row.paths):
        base = row.paths[0].rstrip("/")
        # A client that adds its own /v1 to a base that is not its root.
        path = base + path.removeprefix("/v1")
    scheme, host, port = row.scheme, row.host, row.port
    return _allowed(f"{scheme}://{host}:{port}{path}", others, [row])


def _authority(text: str, scheme: str) -> tuple[str, int]:
    """Host and port of an address; nothing but plain names, or a row's own literal address."""
    if not text.isascii() or "@" in text or "\\" in text or "%" in text:
        raise _refused("Its host is not a plain name.")
    host, colon, digits = text.lower().partition(":")
    if text.startswith("["):
        # Only a row can have made it allowed; it is compared to the letter.
        host, _, after = text.lower().partition("]")
        host, colon, digits = host + "]", after[:1], after[1:]
        if colon not in ("", ":"):
            raise _refused("Its host is not a plain name.")
    elif not _HOST.fullmatch(host):
        raise _refused("Its host is not a plain name.")
    if colon and not (digits.isdigit() and len(digits) <= 5):
        raise _refused("Its port is no number.")
    return host, int(digits) if colon else _DEFAULT_PORTS[scheme]


def _check_path(path: str) -> None:
    """Refuse what a server may read as another path than we do."""
    if not path.startswith("/") or not _PATH.fullmatch(path):
        raise _refused("Its path holds characters that no path may.")
    lowered = path.lower()
    if any(code in lowered for code in ("%2f", "%5c", "%2e", "%00", "%25", "%3f", "%23")):
        raise _refused("Its path hides a sign of a path.")
    if re.search(r"%(?![0-9a-f]{2})|%[01][0-9a-f]|%7f", lowered):
        raise _refused("Its path holds control characters.")
    if "//" in path or any(part.partition(";")[0] in (".", "..") for part in path.split("/")):
        raise _refused("Its path is not a plain one.")


def _repaired(path: str, prefixes: Iterable[str]) -> str:
    """Give back the slash that an SDK dropped between a known base and what it added."""
    for prefix in prefixes:
        if _is_within(path, prefix):
            return path
        if path.startswith(prefix) and re.match(r"[a-z]", path[len(prefix) :]):
            return f"{prefix}/{path[len(prefix) :]}"
    return path


def _is_within(path: str, prefix: str) -> bool:
    prefix = prefix.rstrip("/")
    return path == prefix or path.startswith(prefix + "/")


def _strip(query: str) -> str:
    """A query without the parameters that could carry a key."""
    return "&".join(
        part
        for part in query.split("&")
        if part and unquote(part.partition("=")[0]).lower() != "key"
    )


def _refused(why: str) -> errors.Forbidden:
    return errors.Forbidden(
        f"This address may not be called through the gateway. {why}", code="target_not_allowed"
    )
