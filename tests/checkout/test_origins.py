from __future__ import annotations

import pytest

from billing import errors
from checkout import origins


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("https://app.example.com", "https://app.example.com"),
        ("https://app.example.com/", "https://app.example.com"),
        ("HTTPS://App.Example.Com", "https://app.example.com"),
        ("https://app.example.com:443", "https://app.example.com"),
        ("http://localhost:3000", "http://localhost:3000"),
        ("http://127.0.0.1:8080", "http://127.0.0.1:8080"),
        ("https://xn--zo-hja.example", "https://xn--zo-hja.example"),
    ],
)
def test_an_origin_is_kept_in_its_plain_form(text: str, plain: str) -> None:
    assert origins.exact(text) == plain


@pytest.mark.parametrize(
    "text",
    [
        "",
        "app.example.com",
        "ftp://app.example.com",
        "javascript:alert(1)",
        "data:text/html,x",
        "https://",
        "https://*.example.com",
        "https://*",
        "*",
        "'self'",
        "https://app.example.com; script-src *",
        "https://app.example.com;",
        "https://app.example.com https://evil.example",
        "https://app.example.com\nx: y",
        "https://app.example.com\r\n",
        "https://app.example.com\t",
        "https://app.example.com,https://evil.example",
        "https://user@app.example.com",
        "https://user:pw@app.example.com",
        "https://app.example.com/path",
        "https://app.example.com?x=1",
        "https://app.example.com#x",
        "https://app.example.com\\@evil.example",
        "https:\\\\app.example.com",
        "//app.example.com",
        "https://[::1]",
        "https://app.example.com:99999",
        "https://app.example.com:0",
        "https://app.example.com:",
        "https://-app.example.com",
        "https://app..example.com",
        "https://zoë.example",
        "https://app.example.com\x00",
        'https://app.example.com"><svg onload=alert(1)>',
        "https://" + "a" * 300 + ".example",
        "null",
    ],
)
def test_an_origin_that_could_widen_the_frame_is_refused(text: str) -> None:
    with pytest.raises(errors.Invalid) as refusal:
        origins.exact(text)
    assert refusal.value.param == "origin_url"


@pytest.mark.parametrize(
    "text",
    [
        "https://app.example.com/done",
        "https://app.example.com/done?x=1&y=2#top",
        "https://app.example.com",
        "https://app.example.com:443/x",
    ],
)
def test_a_return_address_stays_on_the_origin(text: str) -> None:
    assert origins.within(text, "https://app.example.com") == text


@pytest.mark.parametrize(
    "text",
    [
        "//evil.example",
        "/path",
        "\\evil.example",
        "https:\\\\evil.example",
        "https://app.example.com\\@evil.example/",
        "https://app.example.com@evil.example/",
        "https://evil@app.example.com/",
        "https://evil.example/https://app.example.com",
        "http://app.example.com/",
        "https://app.example.com:8443/",
        "https://app.example.com.evil.example/",
        "javascript:alert(document.domain)//https://app.example.com",
        "https://app.example.com/\nx",
        "https://app.example.com/a b",
        " https://app.example.com/",
        "https://[app.example.com/",
        "",
    ],
)
def test_a_return_address_elsewhere_is_refused(text: str) -> None:
    with pytest.raises(errors.Invalid):
        origins.within(text, "https://app.example.com")
