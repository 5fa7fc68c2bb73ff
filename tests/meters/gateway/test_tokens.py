"""The token of a call: every spelling of it, and what is none."""

from __future__ import annotations

import base64
import json
import zlib
from typing import Any

import pytest

from billing import errors, ids
from meters.gateway import tokens

# The same in each process that collects these tests.
_BODY = "aks_test_" + "Lava" * 10 + "key"
KEY = _BODY + ids.base62(zlib.crc32(_BODY.encode()).to_bytes(4, "big"), 6)
CONNECTION = ids.new(sandbox=True)
TOLD = {
    "secret_key": KEY,
    "connection_id": ids.public("con", CONNECTION),
    "meter_slug": "chat",
    # Makes + and / appear in the encoding.
    "provider_key": "sk-\u00ff\u00fe~~~???>>>"[:3] + "~~~???>>>",
}


def pack(**told: Any) -> str:
    return base64.b64encode(json.dumps(told).encode()).decode()


@pytest.mark.parametrize(
    "spell",
    [
        lambda text: text,
        lambda text: text.rstrip("="),
        lambda text: text.replace("+", "-").replace("/", "_"),
        lambda text: text.replace("+", "-").replace("/", "_").rstrip("="),
        lambda text: "\n".join(text[i : i + 64] for i in range(0, len(text), 64)) + "\r\n",
        lambda text: f"  {text} ",
    ],
)
def test_every_spelling_says_the_same(spell: Any) -> None:
    found = tokens.parse(spell(pack(**TOLD)))
    assert (found.secret_key, found.connection, found.meter) == (KEY, CONNECTION, "chat")
    assert found.provider_key == TOLD["provider_key"]
    assert found.is_sandbox and not found.disable_billing


def test_the_modes() -> None:
    assert tokens.parse(KEY) == tokens.Token(secret_key=KEY)
    assert tokens.parse(pack(secret_key=KEY, connection_id=None, meter_slug=None)).meter == ""
    assert tokens.parse(pack(secret_key=KEY, meter_slug="chat")).connection is None
    newer = {"customer_id": TOLD["connection_id"], "meter_slug": "m", "disable_billing": True}
    found = tokens.parse(pack(secret_key=KEY, **newer))
    assert found.connection == CONNECTION and found.disable_billing
    older = tokens.parse(
        pack(secret_key=KEY, connection_secret=TOLD["connection_id"], product_secret="old")
    )
    assert (older.connection, older.meter) == (CONNECTION, "old")


def test_an_opaque_token_is_read_and_its_typo_refused() -> None:
    text = tokens.new(sandbox=True)
    assert tokens.parse(text).opaque == text and tokens.parse(text).is_sandbox
    assert not tokens.parse(tokens.new(sandbox=False)).is_sandbox
    for place in (10, 30, -1):
        changed = list(text)
        changed[place] = "a" if changed[place] != "a" else "b"
        with pytest.raises(errors.Unauthenticated):
            tokens.parse("".join(changed))


@pytest.mark.parametrize(
    "text",
    ["sk-proj-abc", "e30=", "bnVsbA==", "W10=", "aks_test_x", KEY[:-1] + "\u0660", "\u00e9\u00e9",
     "lft_", "lft_test_", "=" * 40, pack(secret_key="x"), pack(meter_slug="chat"), "A" * 9000,
     base64.b64encode(b'{"secret_key": NaN}').decode(), base64.b64encode(b"\xff\xfe").decode()],
)  # fmt: skip
def test_what_is_no_token_is_refused_in_the_same_words(text: str) -> None:
    with pytest.raises(errors.Unauthenticated) as refused:
        tokens.parse(text)
    assert (refused.value.code, refused.value.message) == ("invalid_key", "The key is not valid.")


@pytest.mark.parametrize(
    ("told", "code"),
    [
        ({"connection_id": TOLD["connection_id"]}, "meter_missing"),
        ({"connection_id": "con_1", "meter_slug": "m"}, "connection_not_found"),
        ({"connection_id": 7, "meter_slug": "m"}, "invalid_request"),
        ({"provider_key": "a\r\nX-Evil: 1"}, "invalid_request"),
        ({"provider_key": "sk \u00e9"}, "invalid_request"),
        ({"disable_billing": "yes"}, "invalid_request"),
    ],
)
def test_what_a_token_cannot_say(told: dict[str, Any], code: str) -> None:
    with pytest.raises(errors.LavaError) as refused:
        tokens.parse(pack(secret_key=KEY, **told))
    assert refused.value.code == code


@pytest.mark.parametrize(
    ("name", "value"),
    [("authorization", "Bearer {}"), ("authorization", "bearer  {}"), ("x-api-key", "{}"),
     ("x-goog-api-key", "{}"), ("api-key", "{}"), ("xi-api-key", "{}")],
)  # fmt: skip
def test_every_slot_is_read(name: str, value: str) -> None:
    found, slot = tokens.find({name.encode(): value.format(KEY).encode()}, "")
    assert (found.secret_key, slot) == (KEY, name)


def test_a_placeholder_in_one_slot_does_not_hide_the_token_in_another() -> None:
    headers = {b"authorization": b"Bearer placeholder", b"x-api-key": KEY.encode()}
    assert tokens.find(headers, "")[1] == "x-api-key"


def test_a_token_may_stand_in_the_query_and_a_bare_secret_key_may_not() -> None:
    text = tokens.new(sandbox=True)
    assert tokens.find({}, f"alt=sse&key={text}")[0].opaque == text
    with pytest.raises(errors.Unauthenticated) as refused:
        tokens.find({}, f"key={KEY}")
    assert refused.value.code == "key_in_query"
    with pytest.raises(errors.Unauthenticated) as refused:
        tokens.find({}, "")
    assert refused.value.code == "key_missing"


def test_a_token_prints_without_its_secrets() -> None:
    printed = repr(tokens.parse(pack(**TOLD)))
    assert KEY not in printed and "~~~" not in printed
