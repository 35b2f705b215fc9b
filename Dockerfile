# Two images from one file:  docker build --target inference .   and   docker build --target updater .
# The health checks and limits are in docker-compose.yml. A digest pins the base: PYTHON_IMAGE_DIGEST=sha256:...
ARG PYTHON_IMAGE=python
ARG PYTHON_IMAGE_TAG=3.11-slim-bookworm
ARG PYTHON_IMAGE_DIGEST=

FROM ${PYTHON_IMAGE}:${PYTHON_IMAGE_TAG}${PYTHON_IMAGE_DIGEST:+@${PYTHON_IMAGE_DIGEST}} AS base
ENV PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    ORT_DISABLE_TELEMETRY=1 \
    PATH=/venv/bin:/opt/birnn/bin:$PATH

# The order of the stages is one that a builder without BuildKit can go through from the top: it builds everything above
# the target, and the image that answers must need nothing of what trains.

# --- what both images share -------------------------------------------------------------------------------------------

FROM base AS runtime
ARG SOURCE_REVISION=
LABEL org.opencontainers.image.title="birnn-worker" \
      org.opencontainers.image.description="A BiRNN worker node for the Allora network" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.revision="${SOURCE_REVISION}"
# A new named volume takes over owner and mode of the folder it is mounted on: /data must be the user's own here.
RUN groupadd --gid 10001 worker \
    && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /tmp --shell /usr/sbin/nologin worker \
    && install --directory --owner=10001 --group=10001 --mode=0700 /data
ENV HOME=/tmp \
    DATA_DIR=/data
# Empty, and not the user's: `python -m` finds the installed packages and no .env is read from here.
WORKDIR /app
USER 10001:10001

# --- what is built: /venv with what a service needs, and our own packages beside it -----------------------------------

FROM base AS build
# The date of every file that is installed, in seconds, so that one source gives one image; the default is a zip's first.
ARG SOURCE_DATE_EPOCH=315532800
ENV SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH} \
    PIP_NO_CACHE_DIR=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_PYTHON=/venv/bin/python
WORKDIR /src
# Neither pip nor anything else that builds is in /venv.
RUN python -m venv --without-pip /venv \
    && echo /opt/birnn > "$(python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/birnn.pth"
COPY pyproject.toml requirements.lock ./
COPY scripts/locked.py scripts/

# A change of ours makes this layer of a few megabytes anew, and no layer of dependencies.
FROM build AS packages
COPY . .
RUN /usr/local/bin/python -m pip install --no-deps --no-compile --target /opt/birnn . \
    && python -m compileall -q /opt/birnn \
    && find /opt/birnn -exec touch --no-dereference --date="@$SOURCE_DATE_EPOCH" {} +

# --- the image that answers -------------------------------------------------------------------------------------------

FROM build AS build-inference
RUN python scripts/locked.py > /tmp/inference.txt \
    && /usr/local/bin/python -m pip install --require-hashes --requirement /tmp/inference.txt \
    && find /venv -exec touch --no-dereference --date="@$SOURCE_DATE_EPOCH" {} +

FROM runtime AS inference
COPY --from=build-inference /venv /venv
COPY --from=packages /opt/birnn /opt/birnn
ENV HOST=0.0.0.0 \
    PORT=8000
EXPOSE 8000
CMD ["python", "-m", "door"]

# --- the image that trains --------------------------------------------------------------------------------------------

FROM build AS build-updater
ARG TORCH_INDEX_URL=https://download.pytorch.org/whl/cpu
# Torch first and from its own index: the package index would give builds of several gigabytes, for GPUs.
RUN /usr/local/bin/python -m pip install --no-deps --index-url "$TORCH_INDEX_URL" \
        "$(grep -o 'torch==[0-9.]*' pyproject.toml)" \
    && python scripts/locked.py train monitor > /tmp/updater.txt \
    && /usr/local/bin/python -m pip install --require-hashes --requirement /tmp/updater.txt \
    && find /venv -exec touch --no-dereference --date="@$SOURCE_DATE_EPOCH" {} +

FROM runtime AS updater
COPY --from=build-updater /venv /venv
COPY --from=packages /opt/birnn /opt/birnn
CMD ["python", "-m", "updater"]
