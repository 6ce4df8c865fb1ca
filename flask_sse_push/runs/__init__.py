"""Runs: generators that yield in pieces, as language models and long jobs do.

Offers: `manager.Runs` (runs of one worker, in the background; clients of any worker can follow them) and
`response.run_body` (a generator as the body of one response). Inside, `producer` runs one generator,
`output` turns its items into events, `manager` publishes them. Must not know: requests, who may listen, how
streams are served.
"""
