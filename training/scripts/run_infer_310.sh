#!/usr/bin/env bash
# Accuracy of a MINDIR file on Ascend 310.
set -euo pipefail
usage='Usage: run_infer_310.sh [MINDIR_PATH] [DATASET_NAME] [DATASET_PATH] [DEVICE_ID] [--KEY VALUE ...]
DATASET_NAME is the recipe key set: ImageNet (or imagenet2012), ImageFolder, CIFAR10, CIFAR100 or FashionMNIST.
DATASET_PATH is the recipe key data_url. DEVICE_ID is 0 by default. Further arguments are passed to training.preprocess.
Images and logits are written to RESULT_PATH/preprocess_Result and RESULT_PATH/result_Files.
Environment: CONFIG_PATH (the recipe of the model, for image size, mean etc.; default: the values for ImageNet),
RESULT_PATH (default .), DEVICE_TARGET (Ascend, GPU or CPU; default Ascend), PYTHON (default python)'
source "$(dirname -- "${BASH_SOURCE[0]}")/arguments.sh"
source "$(dirname -- "${BASH_SOURCE[0]}")/offline_inference.sh"
(($# >= 3)) || fail "expected at least 3 arguments, got $#"
need_file MINDIR_PATH "$1"
name=$2
[[ $name != imagenet2012 ]] || name=ImageNet # the seed project's name for it
need_folder DATASET_PATH "$3"
need_number DEVICE_ID "${4:-0}"

offline_inference "$1" "$3" "${DEVICE_TARGET:-Ascend}" "${4:-0}" --set "$name" "${@:5}"
