# The service on Ascend 310 and 310P: MindSpore Lite, in a process of its own, on top of docker/service.Dockerfile with
# a BASE_IMAGE of CANN (docker/images.yaml has both steps). MindSpore Lite is in no package index for this Python: put
# the vendor's wheel into docker/wheels/, and beside it lite.txt, which pins it (docs/deploy.md tells how).
ARG SERVICE_IMAGE=repvgg-service-cann:0.1.0
FROM ${SERVICE_IMAGE}
LABEL org.opencontainers.image.title="repvgg service for Ascend 310"
USER 0
# A private index or proxy is the secret pip.conf, which stays out of the image; without it pip uses its defaults.
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
