#!/usr/bin/env bash
# Accuracy of an ONNX file on ONNX Runtime.
set -euo pipefail
usage='Usage: run_infer_onnx.sh [ONNX_PATH] [DATASET_PATH] [DEVICE_TARGET] [DEVICE_ID] [--KEY VALUE ...]
DATASET_PATH is the key data_url. Where they are not given, DEVICE_TARGET (Ascend, GPU or CPU) is that of the
environment or CPU, and DEVICE_ID is 0. Further arguments go to training.preprocess.
Images and logits stay in RESULT_PATH/preprocess_Result and RESULT_PATH/result_Files.
Environment: CONFIG_PATH (the recipe of the model: image size, mean, ...; default: that of ImageNet), RESULT_PATH
(default .), PYTHON (default python)'
source "$(dirname -- "${BASH_SOURCE[0]}")/arguments.sh"
source "$(dirname -- "${BASH_SOURCE[0]}")/offline_inference.sh"
(($# >= 2)) || refuse "at least 2 arguments are needed, not $#"
need_file ONNX_PATH "$1"
need_folder DATASET_PATH "$2"
target=${3:-${DEVICE_TARGET:-CPU}}
need_number DEVICE_ID "${4:-0}"

offline_inference "$1" "$2" "$target" "${4:-0}" "${@:5}"
