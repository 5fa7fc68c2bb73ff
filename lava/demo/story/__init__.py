"""The story `manage.py up` seeds: two merchants, their customers, and sixty days of what they did.

`cast` says who is in it, `rhythm` when they use what, `stage` builds the merchants and what they
sell, `telling` plays it on the sandboxes' clocks by the product's own verbs, `facts` says the
logins, told once and kept, and `crowd` adds a great many customers for measuring. Nothing here
writes a balance, a payment or a ledger line itself.
"""
