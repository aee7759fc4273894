# The gateway's image, as that of the operator is made.
#   docker build -f images/gateway.Dockerfile -t genrm-gateway .
ARG BASE_IMAGE=python:3.11-slim-bookworm

FROM ${BASE_IMAGE} AS build
ARG PIP_NO_INDEX
ARG PIP_FIND_LINKS
WORKDIR /src
COPY requirements/gateway.txt requirements/
RUN python3 -m venv /opt/genrm \
 && /opt/genrm/bin/pip install --no-cache-dir --disable-pip-version-check --require-hashes -r requirements/gateway.txt
COPY pyproject.toml README.md LICENSE ./
COPY crds crds
COPY operator operator
COPY verl_plugin verl_plugin
RUN /opt/genrm/bin/pip install --no-cache-dir --disable-pip-version-check --no-deps . \
 && /opt/genrm/bin/pip uninstall --yes --quiet pip setuptools \
 && python3 -m compileall -q /opt/genrm/lib

FROM ${BASE_IMAGE}
COPY --from=build /opt/genrm /opt/genrm
USER 65532:65532
ENV PYTHONUNBUFFERED=1 HOME=/tmp
ENTRYPOINT ["/opt/genrm/bin/genrm-gateway"]
