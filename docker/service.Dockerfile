# The service: for CPU by default, for NVIDIA cards with LOCK=serve-cuda PROVIDER=cuda (docker/images.yaml has both).
# The image contains the shipped bundle; to serve another one, mount its folder and set REPVGG_MODEL.
ARG BASE_IMAGE=python:3.11-slim-bookworm

FROM ${BASE_IMAGE} AS build
WORKDIR /build
# hadolint ignore=DL3008
RUN apt-get update && apt-get install --yes --no-install-recommends binutils && rm -rf /var/lib/apt/lists/*
ENV PIP_CACHE_DIR=/var/cache/pip
RUN python -m venv tools && python -m venv --without-pip /opt/repvgg
COPY requirements/build.lock requirements/
# The secret pip.conf may name a private index or proxy; it stays out of the image. Without it pip uses its defaults.
RUN --mount=type=secret,id=pip.conf,target=/etc/pip.conf --mount=type=cache,target=/var/cache/pip \
    tools/bin/pip install --require-hashes --requirement requirements/build.lock
ARG LOCK=serve
COPY requirements/${LOCK}.lock requirements/
RUN --mount=type=secret,id=pip.conf,target=/etc/pip.conf --mount=type=cache,target=/var/cache/pip \
    tools/bin/pip --python /opt/repvgg/bin/python install --only-binary :all: --no-deps --require-hashes --requirement requirements/${LOCK}.lock
# What packages ship and serving never loads: their tests (numpy's are 17 MB) and numpy's compilers, ONNX Runtime's library
# for C (34 MB, which its Python module contains once more) and its scripts for language models, ncnn's downloader.
RUN find /opt/repvgg -depth \( -type d -name tests -o -name 'libonnxruntime.so.*' -o -path '*/onnxruntime/transformers' \
    -o -path '*/ncnn/model_zoo' -o -path '*/ncnn/utils' -o -path '*/numpy/f2py' -o -path '*/numpy/distutils' \) -exec rm -r {} + \
    # uvloop's symbols for debuggers are 12 MB, cryptography's 3.
    && find /opt/repvgg \( -path '*/uvloop/*.so' -o -path '*/cryptography/*.so' \) -exec strip --strip-unneeded {} +
COPY pyproject.toml README.md LICENSE ./
COPY models models
COPY weights weights
COPY hub hub
COPY service service
COPY training training
# Installed apart from its dependencies, so that a new version is a small layer on top of a large, unchanged one.
RUN tools/bin/pip wheel --no-cache-dir --no-index --no-deps --no-build-isolation --wheel-dir wheels . \
    && tools/bin/pip --python /opt/repvgg/bin/python install --no-index --no-deps --prefix /own wheels/*.whl

FROM ${BASE_IMAGE}
COPY --from=build /opt/repvgg /opt/repvgg
COPY --from=build /own /opt/repvgg
COPY docker/healthcheck.py /opt/repvgg/
ARG PROVIDER=cpu
# The file system may be read-only: pip has already compiled the byte code.
ENV PATH=/opt/repvgg/bin:${PATH} \
    PYTHONDONTWRITEBYTECODE=1 \
    ORT_DISABLE_TELEMETRY=1 \
    REPVGG_HOST=0.0.0.0 \
    REPVGG_ENGINE_PROVIDER=${PROVIDER}
WORKDIR /tmp
USER 1000:1000
EXPOSE 8000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 CMD ["python", "-I", "/opt/repvgg/healthcheck.py"]
ENTRYPOINT ["repvgg"]
CMD ["serve"]
# The values that change most come last, so that the layers above stay cached.
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="repvgg service" \
      org.opencontainers.image.description="RepVGG image classification over HTTP" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
