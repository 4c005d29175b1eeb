# Training: for CPU by default, for Ascend 910 with a CANN BASE_IMAGE, whose environment it keeps (docker/images.yaml has
# both). The root file system may be read-only, except /tmp, where MindSpore keeps compiled kernels.
ARG BASE_IMAGE=python:3.11-slim-bookworm

FROM ${BASE_IMAGE} AS build
WORKDIR /build
ENV PIP_CACHE_DIR=/var/cache/pip
RUN python -m venv tools && python -m venv --without-pip /opt/repvgg
COPY requirements/train.lock requirements/
# The secret pip.conf may name a private index or proxy; it stays out of the image. Without it pip uses its defaults.
RUN --mount=type=secret,id=pip.conf,target=/etc/pip.conf --mount=type=cache,target=/var/cache/pip \
    tools/bin/pip --python /opt/repvgg/bin/python install --only-binary :all: --require-hashes --requirement requirements/train.lock

FROM ${BASE_IMAGE}
# MindSpore's wheel needs libgomp; CANN's Ubuntu images already have it.
# hadolint ignore=DL3008
RUN apt-get update && apt-get install --yes --no-install-recommends libgomp1 \
    && rm -rf /var/lib/apt/lists/* /var/cache/apt/*
COPY --from=build /opt/repvgg /opt/repvgg
COPY models /app/models
COPY weights /app/weights
COPY hub /app/hub
COPY training /app/training
# HOME is set because user 1000 has no entry in /etc/passwd and can write nowhere else.
ENV PATH=/opt/repvgg/bin:${PATH} \
    PYTHONPATH=/app${PYTHONPATH:+:${PYTHONPATH}} \
    PYTHONSAFEPATH=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    HOME=/tmp
WORKDIR /tmp
USER 1000:1000
STOPSIGNAL SIGTERM
HEALTHCHECK NONE
ENTRYPOINT ["python", "-m"]
CMD ["training.train", "--help"]
# The values that change most come last, so that the layers above stay cached.
ARG VERSION=0.1.0
ARG REVISION=unknown
# Recorded in the manifest of a bundle that is exported here.
ENV SOURCE_COMMIT=${REVISION}
LABEL org.opencontainers.image.title="repvgg training" \
      org.opencontainers.image.description="Training of RepVGG with MindSpore, up to the model bundle" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
