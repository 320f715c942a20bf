#!/usr/bin/env bash
# Nothing but curl: a picture as it is, over the v2 protocol's HTTP with binary tensors.
#
#   ask_with_curl.sh http://127.0.0.1:8000 MODEL INPUT OUTPUT PICTURE
set -euo pipefail
if [ $# -ne 5 ]; then
  echo "usage: $0 http://127.0.0.1:8000 MODEL INPUT OUTPUT PICTURE" >&2
  exit 2
fi
url=$1 model=$2 input=$3 output=$4 picture=$5

curl -sSf "$url/v2/models/$model" >/dev/null # is it served? its inputs and outputs are in the answer

size=$(wc -c <"$picture")
# A BYTES element is its length in 4 bytes, little-endian, and then itself.
length=$(printf '\\x%02x\\x%02x\\x%02x\\x%02x' $((size & 255)) $((size >> 8 & 255)) $((size >> 16 & 255)) $((size >> 24)))
json=$(printf '{"inputs":[{"name":"%s","shape":[1],"datatype":"BYTES","parameters":{"binary_data_size":%d}}],"outputs":[{"name":"%s"}]}' \
  "$input" $((size + 4)) "$output")

{ printf '%s' "$json"; printf "$length"; cat "$picture"; } |
  curl -sS --fail-with-body --data-binary @- -H "Inference-Header-Content-Length: ${#json}" "$url/v2/models/$model/infer"
echo
