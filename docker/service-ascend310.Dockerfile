# The service on Ascend 310 and 310P: MindSpore Lite in its own process, on top of docker/service.Dockerfile with a CANN
# BASE_IMAGE (docker/images.yaml has both steps). No package index has MindSpore Lite for this Python: put the vendor's
# wheel into docker/wheels/, together with a lite.txt that pins it (see docs/deploy.md).
ARG SERVICE_IMAGE=repvgg-service-cann:0.1.0
FROM ${SERVICE_IMAGE}
LABEL org.opencontainers.image.title="repvgg service for Ascend 310"
USER 0
# The secret pip.conf may name a private index or proxy; it stays out of the image. Without it pip uses its defaults.
RUN --mount=type=secret,id=pip.conf,target=/etc/pip.conf \
    --mount=type=bind,source=docker/wheels,target=/wheels \
    /opt/repvgg/bin/python -m venv /opt/lite \
    && /opt/lite/bin/pip install --no-cache-dir --only-binary :all: --require-hashes --requirement /wheels/lite.txt
ARG LITE_DEVICE=ascend310p
ENV REPVGG_ENGINE=mindspore-lite \
    REPVGG_ENGINE_PYTHON=/opt/lite/bin/python \
    REPVGG_LITE_DEVICE=${LITE_DEVICE}
# The driver's device files belong to this user and group.
USER 1000:1000
