# shellcheck shell=bash
# Sourced by run_infer_310.sh and run_infer_onnx.sh: the three steps of offline inference.

offline_inference() { # MODEL DATASET_PATH DEVICE_TARGET DEVICE_ID [--KEY VALUE ...]
  local model=$1 dataset=$2 target=$3 device_id=$4 config=()
  local images=${RESULT_PATH:-.}/preprocess_Result results=${RESULT_PATH:-.}/result_Files
  [[ $target =~ ^(Ascend|GPU|CPU)$ ]] || fail "DEVICE_TARGET $target must be Ascend, GPU or CPU"
  if [[ -n ${CONFIG_PATH:-} ]]; then
    need_file CONFIG_PATH "$CONFIG_PATH"
    config=(--config "$CONFIG_PATH")
  fi
  for folder in "$images" "$results"; do
    [[ ! -e $folder ]] || fail "$folder exists: remove it or set RESULT_PATH"
  done
  # In the seed project DATASET_PATH was the folder of the classes; here it is the folder that contains them as val/.
  [[ $(basename -- "$dataset") != val || -d $dataset/val ]] || dataset=$(dirname -- "$dataset")

  "${python:?}" -m training.preprocess "${config[@]}" --data_url "$dataset" --result_path "$images" "${@:5}"
  "$python" -m training.infer --model "$model" --input_path "$images/img_data" --result_path "$results" \
    --device_target "$target" --device_id "$device_id"
  "$python" -m training.postprocess --result_path "$results" --label_path "$images/label/label.json"
}
