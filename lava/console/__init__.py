"""The merchant's console: Django's admin site, grown up. Parses, calls one verb, presents.

`site` holds its addresses, `middleware` says whose books are open, `access` who may enter a page.
"""
