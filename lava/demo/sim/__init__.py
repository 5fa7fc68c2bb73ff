"""The simulator: months of merchants and customers, against a model that shares no code with Lava.

`model` is money.md in plain integers; `network` stands in for the card network inside the process;
`world` freezes the clock and compares the product's books with the model's; `play` makes up what
happens, from a seed. `manage.py simulate` runs it; tests/billing/test_life.py uses all but `play`.
"""
