"""A gunicorn configuration that logs each call of `post_request`."""

accesslog = "-"


def post_request(worker, request, environ, response):  # type: ignore[no-untyped-def]
    worker.log.info("post_request %s", request.path)
