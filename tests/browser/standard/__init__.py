"""The cases of the web-platform-tests for EventSource, in our words, and a server that plays them."""
