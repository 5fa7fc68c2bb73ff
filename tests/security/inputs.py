"""What a hostile client says: values, bodies, queries, headers and forms that no one means well.

Used by `hostile`, which makes inputs of them without end, and by test_hostile_bodies, which puts
each into each field.
"""

from __future__ import annotations

# As JSON text, since some of it is no JSON that a library would write.
NEVER_RIGHT = [
    '"\\u0000"',
    '"a\\u0000b"',
    '"\\ud800"',
    '"\\udfff\\ud800"',
    "NaN",
    "Infinity",
    "-Infinity",
    "1e999",
    "1e5",
    "9" * 65,
    "-" + "9" * 64,
    "0.1234567890123456789012345678901234567890123456789012345678901234567890",
    "[" * 40 + "]" * 40,
    '{"a":' * 40 + "1" + "}" * 40,
    '{"a": 1, "a": 2}',
    "tru",
    "'text'",
    "",
]
# Well-formed JSON that hardly any field takes; a field that does may answer with success.
ODD = [
    "null",
    "true",
    "0",
    "-1",
    "1.5",
    "9007199254740993",
    "999999999999",
    "[]",
    "{}",
    "[null]",
    "[[[]]]",
    '[{"id": 1}]',
    '{"": ""}',
    '{"$gt": ""}',
    '""',
    '" "',
    '"\\n"',
    '"' + "x" * 10_000 + '"',
    '"\uff11\uff12"',
    '"1_0"',
    '"+1"',
    '"1e3"',
    '"NaN"',
    '"-0.00"',
    '"00000000000000000001"',
    '"999999999999.9999999999"',
    '"0.00000000001"',
    '"\' OR 1=1 --"',
    '"%s%n{}{0}"',
    '"../../etc/passwd"',
    '"<svg onload=alert(1)>"',
    '"\u202e\u200b\ufeff"',
    '"\U0001f4a9"',
    '"con_01JDAFW9ZVFM6A4SHQ6GPC0T4E"',
    '"2026-13-45T99:99:99Z"',
    '"9999-12-31T23:59:59+14:00"',
    '"0001-01-01T00:00:00Z"',
    '"https://127.0.0.1/"',
    '"//evil"',
]
BROKEN = [
    b"",
    b" ",
    b"{",
    b"[]",
    b"null",
    b'"text"',
    b"1",
    b"{}{}",
    b"{'a': 1}",
    b"\xff\xfe{\x00}\x00",
    b"\xef\xbb\xbf{}",
    b'{"a": "\xff"}',
    b'{"a": "\xc0\x80"}',
    b'{"a": "\xed\xa0\x80"}',
    b"\x00" * 20,
    b"[" * 100_000,
    b'{"a":' * 100_000,
    b'{"__proto__": {"status": 1}, "constructor": 2}',
]
QUERIES = [
    "limit=%00",
    "limit=1e3",
    "limit=" + "9" * 5000,
    "cursor=%00",
    "cursor=x",
    "connection_id='",
    "connection_id=a&customer_id=b",
    "meter_id=%ff",
    "metadata_filters={",
    'metadata_filters=[["a","\\u0000"]]',
    'metadata_filters=[["a","\\ud800"]]',
    "metadata_filters=" + "[" * 999,
    "start=x",
    "start=2026-01-01T00:00:00Z&end=%00",
    "start=9000-01-01T00:00:00Z",
    "start=2026-01-01T00:00:00%2B23:59",
    "status=%00",
    "phone=%00",
    "to=%00",
    "provider=%00",
]
# What a path's id, a query's value or a header may be instead, percent-encoded where it is sent.
TEXTS = ["", "\x00", "a\x00b", "..", "../..", "con_1", "'", "' OR 1=1 --", "\n", "{}", "%", "%s",
         "-1", "\ud800", "\u202e", "x" * 3000, "<svg onload=alert(1)>", "\U0001f4a9", "NaN",
         "1e999"]  # fmt: skip
KEYS = ["", "Bearer", "Bearer ", "Bearer \x00", "Basic YTpi", "Bearer aks_test_" + "x" * 40,
        "Bearer " + "y" * 9000, "bearer null", "Bearer lft_test_x", "Bearer \xff\xfe"]  # fmt: skip
TYPES = ["text/html", "application/x-www-form-urlencoded", "multipart/form-data", "", "\x00",
         "application/json; charset=utf-16", "application/json; charset=nonsense"]  # fmt: skip
VERBS = ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND", "HEAD", "BREW"]
SIGNATURES = ["", "t=,v1=", "t=1,v1=00", "t=99999999999,v1=ff", "v1=" + "0" * 64, "t=NaN,v1=\x00"]
# (path, steps) of the hosted pages; each step is a form.
PAGES = {
    "checkout/{secret}": ("", "phone", "code", "resend", "restart", "bundle", "pay", "complete"),
    "buy/{secret}": ("",),
    "receipts/{secret}": ("",),
    "pay/{secret}": ("", "begin", "finish"),
    "card/{secret}": ("",),
    "portal/{merchant}": ("", "phone", "code", "cancel", "resume", "switch", "top-up", "credits",
                          "card", "activity", "csv"),
}  # fmt: skip
