# The operator's image. Any base with Python >= 3.11 and its venv module serves; here it is Debian's.
#   docker build -f images/operator.Dockerfile -t genrm-operator .
# Without an index, point PIP_NO_INDEX/PIP_FIND_LINKS at a folder of wheels (dev/operator_image.py does).
ARG BASE_IMAGE=python:3.11-slim-bookworm

FROM ${BASE_IMAGE} AS build
ARG PIP_NO_INDEX
ARG PIP_FIND_LINKS
WORKDIR /src
COPY requirements/operator.txt requirements/
RUN python3 -m venv /opt/genrm \
 && /opt/genrm/bin/pip install --no-cache-dir --disable-pip-version-check --require-hashes -r requirements/operator.txt
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
# The user has no entry in the base's /etc/passwd, and Kopf asks for its name.
ENV PYTHONUNBUFFERED=1 USER=genrm-operator HOME=/tmp
ENTRYPOINT ["/opt/genrm/bin/python", "-m", "genrm_operator"]
