"""The servers under test, each in its own folder. `registry.py` lists them."""
