"""One account of the delivery promise, for the model tests and for the fault suite.

`published` holds what was published, in order. `stream` holds what one stream must get and compares it with
what it got; `shards` does this over several shards. `records` reads frames. `logs` does all of it for a fault
test, from the notes of its publishers and the logs of its clients. `verdict` counts the faults.
"""
