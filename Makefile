# The two main commands are `make demo` and `make test`. Each creates .venv if it does not exist.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
OLDEST := .venv-oldest
DOCS := .venv-docs
JS := tests/js/node_modules/.installed

# Four processes keep two cores busy, since tests often wait. The tests of a file run one after another. tests/conftest.py
# puts the files in order: quick ones come last, so all processes end at nearly the same time.
PARALLEL := -q -n 4 --dist loadfile --no-loadscope-reorder
# gunicorn_h1c has no wheel for some machines, and then needs a C compiler: where there is none, the tests use only gunicorn's
# own parser.
INSTALL_FAST := pip install -q "gunicorn_h1c>=0.4.1" || echo "no C compiler: the tests leave out gunicorn's parser in C"
# The tests that another Python runs too.
IN_PROCESS := tests/unit tests/contract tests/integration
# The tests of the JavaScript client, which do not depend on the Python.
NO_JS := --ignore tests/unit/test_client_package.py
# The tests that `make coverage` measures. The models and the hostile requests are random, so what they reach proves
# little, and they are slow when measured. The doctor's tests run its commands in their own process.
MEASURED := $(IN_PROCESS) tests/e2e/test_doctor_redis.py $(NO_JS) \
	--ignore-glob "*_model.py" --ignore tests/integration/test_hostile.py
# The tests whose gunicorn workers `make coverage` measures.
MEASURED_SERVERS := tests/e2e/test_hijack.py tests/faults/test_broker.py
# The tests that `make test-oldest` runs.
OLD_CONTRACT := tests/contract tests/integration/test_blueprint.py tests/unit/hub/test_hub_model.py tests/e2e/test_hijack.py

.PHONY: demo screenshots test only-tests test-python test-oldest first-event reloads faults outbox-figures fuzz soak memory coverage bench lint deploy docs format clean

demo: $(VENV)/demo
	$(BIN)/gunicorn -c gunicorn.conf.py "example_app:create_app()"

# Takes the pictures of the demo, docs/images/*.png. Needs Chromium and about two minutes.
screenshots: $(VENV)/demo
	$(BIN)/pip install -q -e ".[screenshots]"
	$(BIN)/python -m example_app.screenshots

# Compiles first, because the tests start hundreds of servers, also where PYTHONDONTWRITEBYTECODE is set. Then checks
# the code beside the tests.
test: $(VENV)/test
	$(BIN)/python -m compileall -q flask_sse_push example_app tests/apps tests/support
	$(MAKE) --no-print-directory -j 2 lint only-tests

only-tests: $(VENV)/test
	$(BIN)/python -m pytest $(PARALLEL) $(ARGS)

# Runs the tests of the package itself with another Python: `make test-python VERSION=3.12`.
test-python: .venv-$(VERSION)/test
	.venv-$(VERSION)/bin/python -m pytest $(PARALLEL) -p no:cacheprovider $(IN_PROCESS) $(NO_JS) $(ARGS)

# Runs the tests of what Flask, gevent, gunicorn and Redis do, with the lowest versions that setup.cfg allows.
test-oldest: $(OLDEST)/test
	$(OLDEST)/bin/python -m pytest $(PARALLEL) -W default -p no:cacheprovider $(OLD_CONTRACT) $(ARGS)

# From a fresh clone, by the README's first command, to an event in Chromium: under five minutes, with pip.
first-event: $(VENV)/test
	$(BIN)/python -m tests.e2e.first_event

# Reloads a page with AI SDK's useChat 200 times, or RELOADS times, while workers are killed and replaced. Resumes an
# answer of 10,000 words.
reloads: $(VENV)/test
	RELOADS=$${RELOADS:-200} LONG_ANSWER=10000 $(BIN)/python -m pytest -q -s -k "any_moment or few_events" \
		tests/browser/test_ai_sdk.py tests/e2e/test_ai_clients.py $(ARGS)

# Runs only tests/faults, and prints the measurements of docs/delivery.md at the end.
faults: $(VENV)/test
	$(BIN)/python -m pytest -q tests/faults $(ARGS)

# 10,000 transactions by 8 processes, with kills of relays, publishers and Redis. Takes some minutes.
outbox-figures: $(VENV)/test
	OUTBOX_TRANSACTIONS=10000 OUTBOX_PROCESSES=8 OUTBOX_KILLS=30 OUTBOX_COMMITS=500 OUTBOX_EVENTS=20000 \
		$(BIN)/python -m pytest -q -s tests/faults/test_outbox.py $(ARGS)

# Writes 100,000 random inputs, or FUZZ_INPUTS, into the keys and channels of a real Valkey.
fuzz: $(VENV)/test
	FUZZ_INPUTS=$${FUZZ_INPUTS:-100000} $(BIN)/python -m pytest -q -s --hypothesis-profile explore \
		tests/contract/test_fuzz.py $(ARGS)

# All faults at once, for half an hour or SOAK_SECONDS.
soak: $(VENV)/test
	$(BIN)/python -m pytest -q -s tests/faults/soak/soak.py $(ARGS)

# Whether the workers' memory stays level, for 130 minutes or MEMORY_SECONDS.
memory: $(VENV)/test
	$(BIN)/python -m pytest -q -s tests/faults/memory.py $(ARGS)

# Not part of `make test`, because measuring distorts the tests of time, memory and imported modules.
# With gevent, coverage watches all greenlets. When two threads end at the same moment, this makes Python 3.11 loop for
# ever. Only gunicorn's workers need it: they have greenlets, and few threads.
coverage: $(VENV)/test
	$(BIN)/coverage erase
	-$(BIN)/coverage run --concurrency=thread -m pytest $(PARALLEL) $(MEASURED) $(ARGS)
	-MEASURE_SERVERS=$(CURDIR)/pyproject.toml $(BIN)/python -m pytest $(PARALLEL) $(MEASURED_SERVERS) $(ARGS)
	$(BIN)/coverage combine -q
	$(BIN)/coverage report

# Compares all servers, then opens a crowd of streams. Needs a quiet machine with two cores and about 50 minutes. Writes
# docs/benchmarks.* and the README's table. Goes on if a goal of the crowd is missed.
bench:
	$(PYTHON) -m benchmarks.setup
	$(PYTHON) -m benchmarks.run --repeat 3 --once idle,heartbeat
	-benchmarks/.venv-peers/bin/python -m benchmarks.crowd --out docs
	$(PYTHON) -m benchmarks.readme

lint: $(VENV)/test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Checks the files that only a container engine, a cluster or GitHub can run. tests/e2e/test_deploy.py runs the others.
deploy: $(DOCS)/deploy
	$(DOCS)/bin/check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yml
	$(DOCS)/bin/zizmor --offline --quiet .github
	$(DOCS)/bin/hadolint deploy/Dockerfile
	$(DOCS)/bin/check-jsonschema --builtin-schema vendor.compose-spec deploy/compose.yaml
	$(DOCS)/bin/kubernetes-validate --strict deploy/kubernetes.yaml

# Builds the site in build/site. Any warning, such as a broken link, makes it fail.
docs: $(DOCS)/site
	$(DOCS)/bin/sphinx-build -q -W --keep-going -E -d build/doctrees docs build/site

format: $(VENV)/test
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/demo: setup.cfg pyproject.toml $(VENV)/bin/python
	$(BIN)/pip install -q -e ".[demo]"
	touch $@

# npm has no Datastar 1.0. The tests take its JavaScript from starhtml, and do not import starhtml.
$(VENV)/test: setup.cfg pyproject.toml $(VENV)/bin/python $(JS)
	$(BIN)/pip install -q -e ".[test]"
	$(BIN)/pip install -q --no-deps --ignore-requires-python "starhtml>=0.7"
	$(BIN)/$(INSTALL_FAST)
	touch $@

# Only the browser tests and a few unit tests need Node.
$(JS): tests/js/package.json tests/js/package-lock.json
	if command -v npm >/dev/null; then cd tests/js && npm install --silent --no-audit --no-fund; fi
	mkdir -p $(@D) && touch $@

.venv-3.%/test: setup.cfg $(JS)
	python="$$(.ci/find-python 3.$*)" && "$$python" -m venv .venv-3.$*
	.venv-3.$*/bin/pip install -q -e ".[test]"
	.venv-3.$*/bin/$(INSTALL_FAST)
	touch $@

$(OLDEST)/test: setup.cfg tests/oldest.txt $(JS)
	$(PYTHON) -m venv $(OLDEST)
	$(OLDEST)/bin/pip install -q -e ".[test]" -c tests/oldest.txt
	touch $@

$(DOCS)/bin/python:
	$(PYTHON) -m venv $(DOCS)

$(DOCS)/site: setup.cfg $(DOCS)/bin/python
	$(DOCS)/bin/pip install -q -e ".[docs]"
	touch $@

$(DOCS)/deploy: setup.cfg $(DOCS)/bin/python
	$(DOCS)/bin/pip install -q -e ".[deploy]"
	touch $@

clean:
	rm -rf $(VENV) $(OLDEST) $(DOCS) .flask-sse-push build dist *.egg-info .coverage* .mypy_cache .pytest_cache .ruff_cache .hypothesis
