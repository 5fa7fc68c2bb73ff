"""Addresses that merchants name: what is never called, in every spelling."""

from __future__ import annotations

import pytest

from billing import addresses, errors

HOSTILE = [
    "http://hooks.example.com/",
    "ftp://hooks.example.com/",
    "file:///etc/passwd",
    "gopher://hooks.example.com/",
    "javascript:alert(1)",
    "//hooks.example.com/",
    "hooks.example.com",
    "https:hooks.example.com",
    "https:/hooks.example.com",
    "https:///hooks.example.com",
    "https://",
    "https://user@hooks.example.com/",
    "https://user:secret@hooks.example.com/",
    "https://hooks.example.com@10.0.0.1/",
    "https://hooks.example.com#@10.0.0.1/",
    "https://hooks.example.com/#part",
    "https://hooks.example.com\\@10.0.0.1/",
    "https://hooks.example.com/\\evil",
    "https://hooks.example.com/a b",
    "https://hooks.example.com/\n",
    "https://hooks.example.com/\r\nHost: evil",
    "https://hooks.example.com/\x00",
    "https://h\u00f6oks.example.com/",
    "https://hooks.example.com\uff0f",
    "https://\uff11\uff12\uff17.0.0.1/",
    "https://hooks.example.com./",
    "https://hooks..example.com/",
    "https://.example.com/",
    "https://-hooks.example.com/",
    "https://hooks.example.com:0/",
    "https://hooks.example.com:99999/",
    "https://hooks.example.com:port/",
    "https://127.0.0.1/",
    "https://127.1/",
    "https://127.0.1/",
    "https://2130706433/",
    "https://0x7f000001/",
    "https://0x7f.0.0.1/",
    "https://0177.0.0.1/",
    "https://017700000001/",
    "https://0/",
    "https://0.0.0.0/",
    "https://10.0.0.1/",
    "https://8.8.8.8/",
    "https://169.254.169.254/latest/meta-data/",
    "https://192.168.1.1/",
    "https://1.2.3.4.5/",
    "https://999.1.1.1/",
    "https://a.b.0x1/",
    "https://[::1]/",
    "https://[::]/",
    "https://[::ffff:127.0.0.1]/",
    "https://[fe80::1%25eth0]/",
    "https://[fd00::1]/",
    "https://[64:ff9b::7f00:1]/",
    "https://[2606:4700::1111]/",
    "https://[::1/",
    "https://%6c%6fcalhost/",
    "https://hooks%2eexample.com/",
    "https://hooks.example.com%00.evil/",
    "https://" + "a" * 64 + ".com/",
    "https://" + "a." * 130 + "com/",
    "https://hooks.example.com/" + "x" * 2000,
]

INSIDE = [
    "0.0.0.0",
    "0.1.2.3",
    "10.1.2.3",
    "100.64.0.1",
    "100.127.255.255",
    "127.0.0.1",
    "127.8.8.8",
    "169.254.169.254",
    "172.16.0.1",
    "172.31.255.255",
    "192.0.0.1",
    "192.0.2.1",
    "192.88.99.1",
    "192.168.0.1",
    "198.18.0.1",
    "198.51.100.1",
    "203.0.113.1",
    "224.0.0.1",
    "239.255.255.255",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "::127.0.0.1",
    "::ffff:127.0.0.1",
    "::ffff:10.0.0.1",
    "64:ff9b::7f00:1",
    "64:ff9b:1::1",
    "100::1",
    "2001::1",
    "2001:db8::1",
    "2002:7f00:1::",
    "3fff::1",
    "fc00::1",
    "fd12::1",
    "fe80::1",
    "fe80::1%eth0",
    "2606:4700::1%1",
    "ff02::1",
    "4000::1",
    "not an address",
    "",
]


@pytest.mark.parametrize("url", HOSTILE)
def test_a_hostile_url_is_refused(url: str) -> None:
    with pytest.raises(errors.Invalid) as refused:
        addresses.target(url)
    assert refused.value.param == "url"


@pytest.mark.parametrize("address", INSIDE)
def test_an_address_inside_is_never_connected_to(address: str) -> None:
    assert not addresses.may_connect(address)


@pytest.mark.parametrize(
    "address", ["8.8.8.8", "100.63.255.255", "172.32.0.1", "2606:4700::1111", "::ffff:8.8.8.8"]
)
def test_public_addresses_are_connected_to(address: str) -> None:
    assert addresses.may_connect(address)


def test_loopback_is_for_a_local_sandbox_alone() -> None:
    assert addresses.may_connect("127.0.0.1", local=True)
    assert addresses.may_connect("::1", local=True)
    assert not addresses.may_connect("10.0.0.1", local=True)
    assert not addresses.may_connect("169.254.169.254", local=True)
    found = addresses.target("http://127.0.0.1:9000/hook?a=b", local=True)
    assert (found.host, found.port, found.path) == ("127.0.0.1", 9000, "/hook?a=b")
    for url in ("http://10.0.0.1/", "http://127.1/", "http://2130706433/"):
        with pytest.raises(errors.Invalid):
            addresses.target(url, local=True)


def test_a_good_url_is_taken_apart() -> None:
    found = addresses.target("https://Hooks.Example.com:8443/lava?to=1")
    assert (found.scheme, found.host, found.port) == ("https", "hooks.example.com", 8443)
    assert (found.netloc, found.path) == ("hooks.example.com:8443", "/lava?to=1")
    assert addresses.target("https://hooks.example.com").netloc == "hooks.example.com"
