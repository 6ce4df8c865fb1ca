"""Runs: generators whose items are published as events, such as the text of a language model.

Offers:

- `manager.Runs` has the background runs of one worker. Clients of any worker can follow these runs.
- `response.run_body` makes a generator the body of one response.

Inside, `producer` runs one generator, `output` turns the generator's items into events, and `manager`
publishes the events. This package must not know how requests and streams are served, and does not
decide who may listen.
"""
