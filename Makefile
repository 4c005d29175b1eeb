PYTHON ?= python3
.PHONY: serve test test-images check format docs bench lock sbom train train-demo

serve:  ## serve the default model bundle on http://127.0.0.1:8000
	@$(PYTHON) scripts/setup.py serve
	@exec .venv/bin/repvgg serve --log-format console

test:  ## run the whole test suite
	@$(PYTHON) scripts/setup.py dev
	@$(PYTHON) scripts/setup.py lite || echo "MindSpore Lite tests will be skipped"
	@$(PYTHON) scripts/setup.py kserve || echo "KServe client tests will be skipped"
	@.venv/bin/python -m pytest --numprocesses auto --maxprocesses 4 --dist loadgroup --no-loadscope-reorder

IMAGES ?= tests/images
test-images:  ## build and run the container images with podman (scripts/ci_packages.sh installs it on Debian)
	@$(PYTHON) scripts/setup.py dev
	@IMAGE_TESTS=1 .venv/bin/python -m pytest $(IMAGES)

check:  ## format, lint, types, layers
	@$(PYTHON) scripts/setup.py dev
	.venv/bin/ruff format --check . && .venv/bin/ruff check . && .venv/bin/mypy && .venv/bin/lint-imports

format:  ## apply formatting and lint fixes
	@.venv/bin/ruff check --fix . ; .venv/bin/ruff format .

docs:  ## build the documentation site: build/site/index.html
	@$(PYTHON) scripts/setup.py dev
	@NO_MKDOCS_2_WARNING=1 .venv/bin/python -m mkdocs build --strict --quiet

PHOTOS ?= models/samples
bench:  ## compare our service with LitServe, mosec, BentoML, Triton and plain FastAPI (an hour): make bench PHOTOS=FOLDER
	@$(PYTHON) scripts/setup.py dev
	.venv/bin/python -m benchmarks.peers $(PHOTOS)

OUT ?= models/store/mine/1
train:  ## from a folder of photos to a model that can be served: make train PHOTOS=FOLDER [OUT=STORE/NAME/1]
	@$(PYTHON) scripts/setup.py dev
	@.venv/bin/python -m training.start $(PHOTOS) --out $(OUT)

train-demo:  ## train the small network on the CIFAR-10 images in ./data/cifar10 (hours on a laptop)
	@$(PYTHON) scripts/setup.py dev
	.venv/bin/python -m training.train --config training/recipes/repvgg_tiny_cifar10.yaml --device_target CPU

ENGINE ?= docker
IMAGE ?= repvgg-service-cpu:$(shell sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)
sbom:  ## print the CycloneDX bill of materials of an image: make sbom IMAGE=repvgg-training-cpu:0.1.0 ENGINE=podman
	@$(ENGINE) run --rm --interactive --network none --read-only --entrypoint python $(IMAGE) - < scripts/sbom.py

UV_COMPILE = uv pip compile --quiet --universal --python-version 3.10 --generate-hashes --custom-compile-command "make lock"
lock:  ## update the lock files; needs uv
	$(UV_COMPILE) --extra dev pyproject.toml --output-file requirements/dev.lock
	$(UV_COMPILE) --extra onnx --extra ncnn --extra signing --constraint requirements/dev.lock pyproject.toml --output-file requirements/serve.lock
	$(UV_COMPILE) --extra openvino --extra signing --constraint requirements/dev.lock pyproject.toml --output-file requirements/serve-openvino.lock
	$(UV_COMPILE) --extra cuda --extra signing --constraint requirements/dev.lock pyproject.toml --output-file requirements/serve-cuda.lock
	$(UV_COMPILE) --extra pull --extra s3 --extra gs --extra az --extra signing --constraint requirements/dev.lock pyproject.toml --output-file requirements/pull.lock
	$(UV_COMPILE) --extra train --constraint requirements/dev.lock pyproject.toml --output-file requirements/train.lock
	echo 'mindspore-lite==2.0.0' | uv pip compile --quiet --python-version 3.7 --python-platform linux --generate-hashes --custom-compile-command "make lock" - --output-file requirements/lite.lock
	echo 'kserve' | $(UV_COMPILE) - --output-file requirements/kserve.lock
	echo 'timm torchvision safetensors' | tr ' ' '\n' | $(UV_COMPILE) - --output-file requirements/timm.lock
	echo 'setuptools>=77' | $(UV_COMPILE) --constraint requirements/dev.lock - --output-file requirements/build.lock
