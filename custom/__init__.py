"""A place for strategies and methods of your own, which travel with the app: custom/mine.py is `custom.mine` anywhere.

`strategy='custom.mine:MyStrategy'` and `method='custom.mine:MyMethod'` name classes in it. docs/adding-a-strategy.md
and docs/adding-a-method.md have an example each. Flower carries files that end in .py, but for those named test_*.py.
"""
