"""Where a call may go: every form of the URL, one check, and what is refused by it."""

from __future__ import annotations

import json
from pathlib import Path
from urllib.parse import quote, urlsplit

import pytest

from billing import errors
from meters.gateway import providers, targets
from meters.gateway.providers import Provider

CHAT = "https://api.openai.com/v1/chat/completions"
OWN = Provider(slug="vllm", name="Our vLLM", host="vllm.example.com", paths=("/v1",), own=True)
LOCAL = Provider(
    slug="local", name="Here", host="127.0.0.1", port=8002, scheme="http", paths=("/v1",),
    own=True, private=True,
)  # fmt: skip


def url_of(path: str, query: str = "", own: tuple[Provider, ...] = ()) -> str:
    return targets.resolve(path, query, own=own).url


@pytest.mark.parametrize(
    ("path", "query"),
    [
        ("/v1/forward", f"u={CHAT}"),
        ("/v1/forward/", f"u={CHAT}"),
        ("/v1/forward", f"u={quote(CHAT, safe='')}"),
        # openai-python moves the slash and drops the one after the base.
        ("/v1/forward/", "u=https://api.openai.com/v1chat/completions"),
        ("/v1/forward", "u=https://api.openai.com/v1v1/chat/completions"),
        ("/v1/forward", "u=https://API.openai.com:443/v1/v1/chat/completions"),
        ("/v1/forward/openai/v1/chat/completions", ""),
        ("/v1/forward/OpenAI/v1/v1/chat/completions", ""),
        ("/v1/forward/openai/chat/completions", ""),
        (f"/v1/forward/{CHAT}", ""),
        ("/v1/forward/https:/api.openai.com/v1/chat/completions", ""),
        (f"/v1/forward/{quote(CHAT, safe='')}", ""),
        ("/v1/forward/openai/v1/chat/completions", "metadata=%7B%7D&key=lft_x"),
    ],
)
def test_every_form_leads_to_the_same_address(path: str, query: str) -> None:
    assert url_of(path, query) == CHAT


def test_the_longest_base_of_a_host_is_its_provider() -> None:
    base = "https://generativelanguage.googleapis.com/v1beta"
    native = targets.resolve("/v1/forward", f"u={base}/models/gemini-2.5-pro:generateContent")
    assert native.provider.slug == "google"
    openai = targets.resolve("/v1/forward/", f"u={base}/openaichat/completions")
    assert openai.provider.slug == "googleOpenaiCompatible"
    assert openai.url == f"{base}/openai/chat/completions"


def test_parameters_outside_belong_to_the_target() -> None:
    path = "https://generativelanguage.googleapis.com/v1beta/models/g:streamGenerateContent"
    assert url_of("/v1/forward", f"u={path}&alt=sse&key=lft_x") == f"{path}?alt=sse"
    assert url_of("/v1/forward", f"u={path}?alt=sse&key=secret&b=%20c") == f"{path}?alt=sse&b=%20c"
    assert url_of("/v1/forward/anthropic/v1/messages", "beta=true").endswith("/messages?beta=true")


def test_a_base_that_is_not_the_root_takes_what_a_client_adds() -> None:
    groq = "https://api.groq.com/openai/v1/chat/completions"
    assert url_of("/v1/forward/groq/openai/v1/chat/completions") == groq
    assert url_of("/v1/forward/groq/v1/chat/completions") == groq
    assert url_of("/v1/forward/groq/chat/completions") == groq
    assert url_of("/v1/forward/", "u=https://api.groq.com/openai/v1chat/completions") == groq


def test_a_merchants_own_rows_stand_beside_the_table() -> None:
    assert url_of("/v1/forward/vllm/v1/chat/completions", own=(OWN,)).startswith(
        "https://vllm.example.com/v1/"
    )
    here = "http://127.0.0.1:8002/v1/models"
    assert url_of("/v1/forward", f"u={here}", own=(LOCAL,)) == here
    assert url_of("/v1/forward/local/v1/models", own=(LOCAL,)) == here
    with pytest.raises(errors.Forbidden):
        url_of("/v1/forward", "u=http://127.0.0.1:8003/v1/models", own=(LOCAL,))
    with pytest.raises(errors.Forbidden):
        url_of("/v1/forward", "u=https://127.0.0.1:8002/v1/models", own=(LOCAL,))


def test_every_address_of_the_official_client_is_allowed() -> None:
    named = {row.slug: row.base for row in providers.TABLE}
    source = Path(__file__).parents[2] / "clients/node_modules/@lavapayments/nodejs/dist/index.js"
    if source.exists():
        text = source.read_text()
        listed = {
            line.split(":", 1)[0].strip(): line.split("forward?u=", 1)[1].split("`")[0]
            for line in text.splitlines()
            if "forward?u=https" in line
        }
        assert len(listed) >= 27
        assert {slug: named[slug] for slug in listed} == listed
    for row in providers.TABLE:
        assert targets.resolve("/v1/forward", f"u={row.base}/models").provider is row
        assert urlsplit(row.base).scheme == "https"


HOSTILE = json.loads((Path(__file__).parent / "hostile.json").read_text())


@pytest.mark.parametrize("url", HOSTILE)
@pytest.mark.parametrize("form", ["raw", "slash", "encoded", "path", "merged"])
def test_no_hostile_address_is_allowed_in_any_form(url: str, form: str) -> None:
    if form == "encoded":
        path, query = "/v1/forward", f"u={quote(url, safe='')}"
    elif form == "path":
        path, query = f"/v1/forward/{url}", ""
    elif form == "merged":
        path, query = f"/v1/forward/{url.replace('://', ':/', 1)}", ""
    else:
        # A browser or SDK would send neither & nor # bare; those are the outer address's own.
        path, query = ("/v1/forward", "/v1/forward/")[form == "slash"], f"u={url}"
    with pytest.raises((errors.Forbidden, errors.Invalid)) as refused:
        targets.resolve(path, query, own=(OWN, LOCAL))
    assert refused.value.code in ("target_not_allowed", "target_missing")


@pytest.mark.parametrize("query", ["u=https:///api.openai.com/v1/models", "u=", "v=https://x"])
def test_an_address_without_a_host_is_none(query: str) -> None:
    with pytest.raises((errors.Forbidden, errors.Invalid)):
        targets.resolve("/v1/forward", query)


def test_a_repair_never_leaves_the_base() -> None:
    """A slash is given back after a known base, so what follows is below it."""
    assert url_of("/v1/forward/", "u=https://api.openai.com/v1beta/x").endswith("/v1/beta/x")
    with pytest.raises(errors.Forbidden):
        url_of("/v1/forward/https://api.openai.com/v1beta/x")


def test_there_are_enough_hostile_addresses() -> None:
    assert len(set(HOSTILE)) >= 60


@pytest.mark.parametrize("path", ["/v1/forward/evil/v1/x", "/v1/forwardx", "/v1/forward//x/y"])
def test_an_unknown_provider_is_refused(path: str) -> None:
    with pytest.raises(errors.Forbidden):
        targets.resolve(path, "")
