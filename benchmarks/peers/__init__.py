"""The servers under test, one folder each; `registry.py` lists them."""
