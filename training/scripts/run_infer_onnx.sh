#!/usr/bin/env bash
# Accuracy of an ONNX file in ONNX Runtime.
set -euo pipefail
usage='Usage: run_infer_onnx.sh [ONNX_PATH] [DATASET_PATH] [DEVICE_TARGET] [DEVICE_ID] [--KEY VALUE ...]
DATASET_PATH is the recipe key data_url. DEVICE_TARGET is Ascend, GPU or CPU; its default is the environment variable of
that name, or CPU. DEVICE_ID is 0 by default. Further arguments are passed to training.preprocess.
Images and logits are written to RESULT_PATH/preprocess_Result and RESULT_PATH/result_Files.
Environment: CONFIG_PATH (the recipe of the model, for image size, mean etc.; default: the values for ImageNet),
RESULT_PATH (default .), DEVICE_TARGET, PYTHON (default python)'
source "$(dirname -- "${BASH_SOURCE[0]}")/arguments.sh"
source "$(dirname -- "${BASH_SOURCE[0]}")/offline_inference.sh"
(($# >= 2)) || fail "expected at least 2 arguments, got $#"
need_file ONNX_PATH "$1"
need_folder DATASET_PATH "$2"
target=${3:-${DEVICE_TARGET:-CPU}}
need_number DEVICE_ID "${4:-0}"

offline_inference "$1" "$2" "$target" "${4:-0}" "${@:5}"
