# The control service of AegisIPC, with ipc-cli: `docker build -t aegis-control .`
# The demo's services and its load, for deploy/docker-compose.yaml: `docker build --target demo -t aegis-demo .`
#
# The first stage installs the locked dependencies, the SDK and control into a venv. Control's image carries that venv
# and nothing else. The demo's image is control's with the demo on top, which needs nothing else there: its nats-server is
# another container. No BuildKit features; no compiler (nkeys, which is published as source alone, is pure Python); not root.

FROM python:3.11-slim-bookworm AS build
# A mirror of the package index, where the public one is not reachable.
ARG PIP_INDEX_URL=https://pypi.org/simple
ENV PIP_INDEX_URL=$PIP_INDEX_URL PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /src
RUN python -m venv /opt/tools && /opt/tools/bin/pip install --quiet "uv>=0.13,<1" "hatchling>=1.26,<2"
RUN python -m venv /opt/aegis
# The dependencies change seldom: their layer is kept while only sources change.
COPY pyproject.toml uv.lock ./
COPY packages/aegis-sdk/pyproject.toml packages/aegis-sdk/README.md packages/aegis-sdk/
COPY packages/aegis-control/pyproject.toml packages/aegis-control/README.md packages/aegis-control/
COPY packages/aegis-demo/pyproject.toml packages/aegis-demo/README.md packages/aegis-demo/
RUN /opt/tools/bin/uv export --quiet --frozen --offline --no-dev --no-emit-workspace \
        --package aegis-control --extra nkeys --output-file /opt/requirements.txt \
    && /opt/aegis/bin/pip install --quiet --require-hashes \
        --only-binary :all: --no-binary nkeys -r /opt/requirements.txt
COPY packages packages
RUN /opt/tools/bin/pip wheel --quiet --no-deps --no-build-isolation --wheel-dir /opt/wheels packages/* \
    && /opt/aegis/bin/pip install --quiet --no-deps --no-index /opt/wheels/aegis_sdk-*.whl /opt/wheels/aegis_control-*.whl \
    && /opt/aegis/bin/pip install --quiet --no-deps --no-index --target /opt/demo /opt/wheels/aegis_demo-*.whl \
    && /opt/aegis/bin/python -m compileall -q /opt/aegis/lib /opt/demo \
    && /opt/aegis/bin/pip uninstall --quiet --yes pip setuptools

FROM python:3.11-slim-bookworm AS control
RUN groupadd --system --gid 10001 aegis \
    && useradd --system --uid 10001 --gid aegis --no-create-home --home-dir /nonexistent aegis
COPY --from=build /opt/aegis /opt/aegis
ENV PATH=/opt/aegis/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 \
    AEGIS_HTTP_HOST=0.0.0.0 AEGIS_HTTP_PORT=9464
USER aegis
EXPOSE 9464
HEALTHCHECK --interval=5s --timeout=3s --start-period=10s --retries=3 CMD ["python", "-c", \
    "import os, urllib.request as r; r.urlopen(f'http://127.0.0.1:{os.environ[\"AEGIS_HTTP_PORT\"]}/readyz', timeout=2)"]
ENTRYPOINT ["aegis-control"]
CMD ["serve"]

FROM control AS demo
COPY --from=build /opt/demo /opt/demo
ENV PYTHONPATH=/opt/demo
ENTRYPOINT ["python", "-m", "aegis_demo.serve"]
# One of accounts, pricing, load.
CMD []

# The last stage is what is built when none is named.
FROM control
