"""`manage.py bench`: what a charge costs beside the least it could cost, measured in one run.

Called by the command alone and imported by nothing of the product. Everything runs on a scratch
cluster of its own (`scratch`), durable as `up` runs it, filled with a shop (`shop`). Sides
(`sides`) alternate in every round; a load client of its own process (`load`) posts to the web
ones; `machine` reads what each group of processes spent; `books` says whether every cent is there.
"""
