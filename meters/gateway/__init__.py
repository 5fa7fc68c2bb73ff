"""The AI gateway: authorise, hold, forward, stream, measure, settle (`/v1/forward` and its kin).

`proxy` is the raw ASGI callable that `lava/asgi.py` puts before Django. What needs no network and
no database stands in pure modules: `tokens` (who pays), `providers` and `targets` (where to),
`frames` and `readers` (what was used), `estimates` (what it will use), `refusals` (how a refusal is
worded in the caller's dialect). `store` alone asks the database, in one trip a step.
"""
