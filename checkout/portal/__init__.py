"""The customers' portal: what a customer sees and does between two checkouts.

`visits` is who is there (a phone code, then half an hour of silence at most), `access` the cookie
and the forms' tokens, `reading` what of the books is shown, `activity` the lines of their credits,
`switching` the words about other plans, `pages` the pages, `views` their addresses. Everything it
does goes through billing's verbs.
"""
