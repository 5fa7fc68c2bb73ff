"""What every endpoint is made of (views, lists, fields), and billing's own endpoints.

`views`, `lists` and `fields` may be imported by the other apps' endpoints.
"""
