"""Addresses of others that we may call: pure judgements on a URL and on an IP address.

Asked by the sender of webhooks and by the gateway. A server that posts where it is told must not be
turned against its own network. `target` judges the text of a URL; `may_connect` judges an address
at the moment of connecting, after the name was resolved, so that a name that points elsewhere the
second time gains nothing. The lists are explicit: `ipaddress.is_private` and `is_global` both miss
ranges.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from urllib.parse import urlsplit

from billing import errors

LONGEST_URL = 2000

_Networks = tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...]


def _networks(*texts: str) -> _Networks:
    return tuple(ipaddress.ip_network(text) for text in texts)


_LOOPBACK = _networks("127.0.0.0/8", "::1/128")
# One's own networks (carriers' NAT among them): only where a row says that it means them.
_PRIVATE = _networks(
    "10.0.0.0/8", "100.64.0.0/10", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7",
)  # fmt: skip
# Never: this network, link-local (the clouds' metadata), documentation, benchmarks, relays,
# multicast, reserved; of IPv6 all but global unicast, and there every way to carry an IPv4 address.
_NEVER_4 = _networks(
    "0.0.0.0/8", "169.254.0.0/16", "192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24",
    "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4",
)  # fmt: skip
_GLOBAL_6 = ipaddress.IPv6Network("2000::/3")
_NEVER_6 = _networks("2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20")
_LABEL = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?")
_NUMBER = re.compile(r"0x[0-9a-f]*|[0-9]+")
_VISIBLE = re.compile(r"[!-\[\]-~]+")  # ASCII without space, controls and the backslash


@dataclass(frozen=True, slots=True)
class Target:
    """Where a URL points, taken apart once."""

    scheme: str
    host: str
    port: int
    # Path and query, as they are sent.
    path: str

    @property
    def netloc(self) -> str:
        """The Host header: the port only where it is not the scheme's own."""
        usual = {"http": 80, "https": 443}[self.scheme]
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == usual else f"{host}:{self.port}"


def target(url: str, *, local: bool = False, param: str = "url") -> Target:
    """Judge the text of a URL: https, a real host name, nothing hidden in it.

    `local` also takes http and loopback, for a sandbox on the developer's own machine.

    Raises:
        billing.errors.Invalid: saying what is wrong with it.
    """
    if not 1 <= len(url) <= LONGEST_URL:
        raise errors.Invalid(f"Write a URL of at most {LONGEST_URL} characters.", param=param)
    if not _VISIBLE.fullmatch(url):
        raise errors.Invalid("A URL is ASCII, without spaces and backslashes.", param=param)
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise errors.Invalid("That is not a URL.", param=param) from error
    schemes = ("https", "http") if local else ("https",)
    if parts.scheme not in schemes or not url.lower().startswith(f"{parts.scheme}://"):
        raise errors.Invalid("Use a URL that begins with https://.", param=param)
    if "@" in parts.netloc or parts.fragment or "#" in url:
        raise errors.Invalid("Leave out user names, passwords and fragments.", param=param)
    host = (parts.hostname or "").lower()
    if not (is_name(host) or (local and _is_loopback(host))):
        raise errors.Invalid(
            "Use a host name such as hooks.example.com, not an address.", param=param
        )
    if port == 0:
        raise errors.Invalid("There is no port 0.", param=param)
    path = parts.path or "/"
    if parts.query:
        path += f"?{parts.query}"
    return Target(
        scheme=parts.scheme,
        host=host,
        port=port or {"http": 80, "https": 443}[parts.scheme],
        path=path,
    )


def is_name(host: str) -> bool:
    """Whether a host is a DNS name in ASCII and no IP address in any spelling that resolvers take:
    dotted, decimal, octal, hexadecimal, shortened; nor one that ends with a dot."""
    labels = host.split(".")
    return (
        len(host) <= 253
        and all(_LABEL.fullmatch(label) for label in labels)
        and not _NUMBER.fullmatch(labels[-1])
    )


def may_connect(address: str, *, local: bool = False, private: bool = False) -> bool:
    """Whether an IP address that a name resolved to may be connected to.

    Public unicast alone; with `local` also loopback, with `private` also loopback and one's own
    networks; link-local never. Anything that is no address: no.
    """
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return False
    if isinstance(found, ipaddress.IPv6Address):
        if found.scope_id is not None:
            return False
        if found.ipv4_mapped is not None:
            return may_connect(str(found.ipv4_mapped), local=local, private=private)
    if any(found in block for block in _LOOPBACK):
        return local or private
    if any(found in block for block in _PRIVATE):
        return private
    if isinstance(found, ipaddress.IPv6Address):
        return found in _GLOBAL_6 and not any(found in block for block in _NEVER_6)
    return not any(found in block for block in _NEVER_4)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
