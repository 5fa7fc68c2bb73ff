"""Which network addresses an outgoing call may reach. Pure.

Asked at connect time by the gateway and by the sender of webhooks, after the name was resolved, so
that no answer of a resolver can move it.

The lists are explicit: `ipaddress.is_private` and `is_global` both miss ranges (shared address
space, multicast, NAT64, 6to4).
"""

from __future__ import annotations

import ipaddress

_Networks = tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...]


def _networks(*texts: str) -> _Networks:
    return tuple(ipaddress.ip_network(text) for text in texts)


# One's own networks: reached only where a row says that it means them.
PRIVATE = _networks(
    "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "127.0.0.0/8", "100.64.0.0/10", "fc00::/7",
    "::1/128",
)  # fmt: skip

# Never reached: this network, link-local (cloud metadata), documentation, benchmarks, multicast,
# reserved, and every way to write an IPv4 address within an IPv6 one.
NEVER = _networks(
    "0.0.0.0/8", "169.254.0.0/16", "192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24",
    "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4",
    "::/128", "64:ff9b::/96", "64:ff9b:1::/48", "100::/64", "2001::/23", "2001:db8::/32",
    "2002::/16", "3fff::/20", "5f00::/16", "fe80::/10", "fec0::/10", "ff00::/8", "::/96",
)  # fmt: skip


def may_reach(text: str, *, private: bool = False) -> bool:
    """Whether a call may go to this address; `private`: also to one's own networks."""
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return False
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    if any(address in network for network in PRIVATE):
        return private
    return not any(address in network for network in NEVER)
