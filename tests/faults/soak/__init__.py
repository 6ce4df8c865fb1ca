"""The long test with all faults at once.

`soak` is the test, `troubles` has its faults, `visitors` has its clients.
"""
