#!/bin/sh
# Trains the default model from the data and writes lite.segmitos, lite-float.segmitos and lite-single.segmitos.
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
# the networks in floats, once int8.
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
[ -e "$out/scout.segmitos" ] || {
    segmitos train "$fields" "$crops" --exclude H03 --recipe proposal -o "$out/scout"
    segmitos model export "$out/scout" -o "$out/scout.segmitos" --name scout
}
for seed in 0 1 2; do
    segmitos train "$fields" "$crops" --exclude H03 --recipe lite --seed $seed \
        -o "$out/lite$seed"
    rm -f "$out/network$seed.segmitos" "$out/network$seed-int8.segmitos"
    segmitos model export "$out/lite$seed" -o "$out/network$seed.segmitos" --name lite \
        --description "$what" --license "$license" --stain-of "mitos14:$out/slides" \
        --thresholds "$out/whole.json"
    segmitos model quantize "$fields" --exclude H03 -m "$out/network$seed.segmitos" \
        -o "$out/network$seed-int8.segmitos"
done
rm -f "$out/lite.segmitos" "$out/lite-float.segmitos" "$out/lite-single.segmitos"
behind_scout() {
    segmitos model combine "$@" --proposal-network "$out/scout.segmitos" --proposal-threshold 0.15 \
        --ensemble-threshold 0.3
}
many="three seeds averaged where the first finds something; behind a first look by five plain \
convolutions at 0.5 um per pixel"
behind_scout "$out/network0.segmitos" "$out/network1.segmitos" "$out/network2.segmitos" \
    --thresholds "$out/three-float.json" --name lite-float --description "$what; $many" \
    -o "$out/lite-float.segmitos"
behind_scout "$out/network0-int8.segmitos" "$out/network1-int8.segmitos" "$out/network2-int8.segmitos" \
    --thresholds "$out/three.json" --name lite --description "$what; int8; $many" \
    -o "$out/lite.segmitos"
cp "$out/network0.segmitos" "$out/lite-single.segmitos"
