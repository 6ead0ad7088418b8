#!/bin/sh
# Trains the default model from the data and writes lite.onnx, lite-float.onnx and lite-whole.onnx.
#
#     sh experiments/lite.sh DATA OUT
#
# from the repository's root, in an environment with segmitos[train]. DATA holds mitos-atypia-14 and
# mitosis-crops. Nine trainings, each of half an hour of one CPU core that multiplies bfloat16, six of
# them for the cross-validation that the thresholds come from. Stopped, it goes on where it was.
set -eu
if [ $# -ne 2 ] || [ ! -d "$1/mitos-atypia-14" ] || [ ! -d "$1/mitosis-crops" ]; then
    echo "usage: sh experiments/lite.sh DATA OUT; DATA holds mitos-atypia-14 and mitosis-crops" >&2
    exit 2
fi
data=$(cd "$1" && pwd)
mkdir -p "$2"
out=$(cd "$2" && pwd)
fields=mitos14:$data/mitos-atypia-14
crops=crops:$data/mitosis-crops
what="EfficientNet-Lite0 to stride 16 with a feature pyramid to stride 4, random concentric labels"
license="research use only: trained on data under CC BY-NC-ND and challenge terms"

# The staining that every slide is matched to is that of the seven slides of the training.
mkdir -p "$out/slides"
for slide in "$data"/mitos-atypia-14/*/; do
    slide=$(basename "$slide")
    [ "$slide" = H03 ] || ln -sfn "$data/mitos-atypia-14/$slide" "$out/slides/$slide"
done

crossval() {
    python -m experiments.cross_validation --data "$data" "$@"
}

# Thresholds: every slide seen by networks, and behind a scout, that were not trained on it; once for
# the networks in floats, once in integers.
crossval --recipe proposal -o "$out/cv-scout" --train-only
for seed in 1 2; do
    crossval --recipe lite --seed $seed -o "$out/cv$seed" --train-only
done
crossval --recipe lite --seed 0 -o "$out/cv0"
cp "$out/cv0/thresholds.json" "$out/whole.json"
crossval --recipe lite --seed 0 -o "$out/cv0" --scout "$out/cv-scout" --window 160 \
    --above 0.15 --second "$out/cv1" "$out/cv2" --confirm-above 0.3
cp "$out/cv0/thresholds.json" "$out/three-float.json"
crossval --recipe lite --seed 0 -o "$out/cv0" --scout "$out/cv-scout" --window 160 \
    --above 0.15 --second "$out/cv1" "$out/cv2" --confirm-above 0.3 --integers
cp "$out/cv0/thresholds.json" "$out/three.json"

# The networks, on all slides but H03.
[ -e "$out/scout.onnx" ] || {
    segmitos train "$fields" "$crops" --exclude H03 --recipe proposal -o "$out/scout"
    segmitos export "$out/scout" -o "$out/scout.onnx" --name scout
}
for seed in 0 1 2; do
    segmitos train "$fields" "$crops" --exclude H03 --recipe lite --seed $seed \
        -o "$out/lite$seed"
    rm -f "$out/network$seed.onnx" "$out/network$seed-int8.onnx"
    segmitos export "$out/lite$seed" -o "$out/network$seed.onnx" --name lite \
        --description "$what" --license "$license" --stain-of "mitos14:$out/slides" \
        --thresholds "$out/whole.json"
    segmitos quantize "$fields" --exclude H03 -m "$out/network$seed.onnx" \
        -o "$out/network$seed-int8.onnx"
done
rm -f "$out/lite.onnx" "$out/lite-float.onnx" "$out/lite-whole.onnx"
behind_scout() {
    segmitos combine "$@" --scout "$out/scout.onnx" --above 0.15 --window 160 --confirm-above 0.3
}
many="three seeds averaged where the first finds something; behind a first look by five plain \
convolutions at 0.5 um per pixel"
behind_scout "$out/network0.onnx" "$out/network1.onnx" "$out/network2.onnx" \
    --thresholds "$out/three-float.json" --name lite-float --description "$what; $many" \
    -o "$out/lite-float.onnx"
behind_scout "$out/network0-int8.onnx" "$out/network1-int8.onnx" "$out/network2-int8.onnx" \
    --thresholds "$out/three.json" --name lite --description "$what; in integers; $many" \
    -o "$out/lite.onnx"
cp "$out/network0.onnx" "$out/lite-whole.onnx"
