"""Which addresses an outgoing call may reach."""

from __future__ import annotations

import pytest

from billing import addresses


@pytest.mark.parametrize("text", ["1.1.1.1", "104.18.7.192", "2606:4700::6812:7c0", "8.8.8.8"])
def test_the_open_network_is_reached(text: str) -> None:
    assert addresses.may_connect(text)


@pytest.mark.parametrize(
    "text",
    ["10.1.2.3", "172.31.255.255", "192.168.0.1", "127.0.0.1", "127.8.8.8", "100.64.0.1",
     "100.127.255.254", "fd12::1", "::1", "::ffff:127.0.0.1", "::ffff:10.0.0.1"],
)  # fmt: skip
def test_ones_own_network_is_reached_only_where_it_is_meant(text: str) -> None:
    assert not addresses.may_connect(text)
    assert addresses.may_connect(text, private=True)


@pytest.mark.parametrize(
    "text",
    ["0.0.0.0", "0.1.2.3", "169.254.169.254", "169.254.0.1", "192.0.0.1", "192.0.2.1",
     "192.88.99.1", "198.18.0.1", "198.51.100.1", "203.0.113.1", "224.0.0.1", "239.255.255.250",
     "240.0.0.1", "255.255.255.255", "::", "fe80::1", "fe80::1%eth0", "fec0::1", "ff02::1",
     "2001:db8::1", "2001::1", "2002:7f00:1::", "64:ff9b::7f00:1", "64:ff9b:1::1", "100::1",
     "3fff::1", "::ffff:169.254.169.254", "::127.0.0.1", "", "localhost", "127.1", "0x7f000001",
     "2130706433", "1.1.1.1.", "1.1.1.1:80"],
)  # fmt: skip
def test_other_addresses_are_never_reached(text: str) -> None:
    assert not addresses.may_connect(text)
    assert not addresses.may_connect(text, private=True)
