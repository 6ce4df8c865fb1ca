"""Serves the admin page and the JSON that it shows. Imported when somebody opens the page.

Offers `views`, which answers all requests below `<prefix>/admin`, and `watch`, which makes workers report
while a page is open. Inside, `visit` reads a request, `writes` protects and logs what an admin changes, and
`answers` says how a worker answers the page's queries. Each other module reads one kind of thing: streams,
channels, workers. Must not check who is an admin: `web/routes.py` asks the function given to
`@sse.authorize_admin`.
"""
