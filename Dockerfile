# Two images from one file:  docker build --target inference .   and   docker build --target updater .
# The health checks and limits are in docker-compose.yml. A digest pins the base: PYTHON_IMAGE_DIGEST=sha256:...
ARG PYTHON_IMAGE=python
ARG PYTHON_IMAGE_TAG=3.11-slim-bookworm
ARG PYTHON_IMAGE_DIGEST=

FROM ${PYTHON_IMAGE}:${PYTHON_IMAGE_TAG}${PYTHON_IMAGE_DIGEST:+@${PYTHON_IMAGE_DIGEST}} AS base
ENV PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    ORT_DISABLE_TELEMETRY=1 \
    PATH=/venv/bin:$PATH

# --- builders: each leaves a /venv that has neither pip nor anything else that builds ---------------------------------

FROM base AS build-inference
ENV PIP_NO_CACHE_DIR=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_PYTHON=/venv/bin/python
WORKDIR /src
RUN python -m venv --without-pip /venv
# Dependencies come before the source, so that a change of ours downloads none of them again.
COPY pyproject.toml requirements.lock ./
RUN python -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["project"]["dependencies"], sep="\n")' \
        > /tmp/inference.txt \
    && /usr/local/bin/python -m pip install --constraint requirements.lock --requirement /tmp/inference.txt
COPY . .
RUN /usr/local/bin/python -m pip install --constraint requirements.lock .

FROM base AS build-updater
ARG TORCH_INDEX_URL=https://download.pytorch.org/whl/cpu
ENV PIP_NO_CACHE_DIR=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_PYTHON=/venv/bin/python
WORKDIR /src
RUN python -m venv --without-pip /venv
# Torch first and from its own index: the package index would give builds of several gigabytes, for GPUs.
COPY pyproject.toml requirements.lock ./
RUN /usr/local/bin/python -m pip install --no-deps --index-url "$TORCH_INDEX_URL" "$(grep '^torch==' requirements.lock)" \
    && python -c 'import tomllib; p = tomllib.load(open("pyproject.toml", "rb"))["project"]; print(*p["dependencies"], *p["optional-dependencies"]["train"], sep="\n")' \
        > /tmp/updater.txt \
    && /usr/local/bin/python -m pip install --constraint requirements.lock --requirement /tmp/updater.txt
COPY . .
RUN /usr/local/bin/python -m pip install --constraint requirements.lock ".[train]"

# --- what runs --------------------------------------------------------------------------------------------------------

FROM base AS runtime
LABEL org.opencontainers.image.title="birnn-worker" \
      org.opencontainers.image.description="A BiRNN worker node for the Allora network" \
      org.opencontainers.image.licenses="Apache-2.0"
# A new named volume takes over owner and mode of the folder it is mounted on: /data must be the user's own here.
RUN groupadd --gid 10001 worker \
    && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /tmp --shell /usr/sbin/nologin worker \
    && install --directory --owner=10001 --group=10001 --mode=0700 /data
ENV HOME=/tmp \
    DATA_DIR=/data
# Empty, and not the user's: `python -m` finds the installed packages and no .env is read from here.
WORKDIR /app
USER 10001:10001

FROM runtime AS updater
COPY --from=build-updater /venv /venv
CMD ["python", "-m", "updater"]

# Last, so that a build without --target gives the smaller one.
FROM runtime AS inference
COPY --from=build-inference /venv /venv
ENV HOST=0.0.0.0 \
    PORT=8000
EXPOSE 8000
CMD ["python", "-m", "door"]
