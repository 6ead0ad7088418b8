#!/bin/sh
# Makes the built-in model from the data.
#
#     sh experiments/default_model.sh DATA OUT
#
# from the repository's root, in an environment with segmitos[train]. Three networks of the `lite`
# recipe and one of the `proposal` recipe learn from MITOS-ATYPIA-14 without H03 and from the crops;
# all are made int8. Then `experiments.laboratories` trains verifiers, each without one
# laboratory, chooses rule and threshold on those left out, and writes OUT/lite.segmitos; last, the
# file gets the reference of the domain check, experiments/domain.json as it is. It takes hours on a
# CPU. Stopped, it goes on where it was.
set -eu
if [ $# -ne 2 ]; then
    echo "usage: sh experiments/default_model.sh DATA OUT" >&2
    exit 2
fi
for folder in mitos-atypia-14 mitosis-crops mitos12 midesec background; do
    if [ ! -d "$1/$folder" ]; then
        echo "$1/$folder is not there: DATA holds all sets that the model learns from" >&2
        exit 2
    fi
done
data=$(cd "$1" && pwd)
mkdir -p "$2"
out=$(cd "$2" && pwd)
fields=mitos14:$data/mitos-atypia-14
crops=crops:$data/mitosis-crops
license="research use only: trained on data under CC BY-NC-ND and challenge terms"

# MiDeSeC's files say no scale.
mkdir -p "$out/midesec"
for file in "$data"/midesec/*; do
    ln -sfn "$file" "$out/midesec/$(basename "$file")"
done
echo 0.25 > "$out/midesec/mpp.txt"

# Every slide is matched to the staining of the seven slides of this training.
mkdir -p "$out/slides"
for slide in "$data"/mitos-atypia-14/*/; do
    slide=$(basename "$slide")
    [ "$slide" = H03 ] || ln -sfn "$data/mitos-atypia-14/$slide" "$out/slides/$slide"
done
for seed in 0 1 2; do
    segmitos train "$fields" "$crops" --exclude H03 --recipe lite --seed $seed -o "$out/lite$seed"
    [ -e "$out/float$seed.segmitos" ] ||
        segmitos model export "$out/lite$seed" -o "$out/float$seed.segmitos" --name lite \
            --license "$license" --stain-of "mitos14:$out/slides"
done
segmitos train "$fields" "$crops" --exclude H03 --recipe proposal -o "$out/proposal"
[ -e "$out/proposal.segmitos" ] ||
    segmitos model export "$out/proposal" -o "$out/proposal.segmitos" \
        --name "five convolutions" --license "$license"
[ -e "$out/floats.segmitos" ] ||
    segmitos model combine "$out/float0.segmitos" "$out/float1.segmitos" "$out/float2.segmitos" \
        --proposal-network "$out/proposal.segmitos" -o "$out/floats.segmitos"
[ -e "$out/networks.segmitos" ] ||
    segmitos model quantize "$fields" "mitos12:$data/mitos12" "points:$out/midesec" \
        --exclude H03 -m "$out/floats.segmitos" -o "$out/networks.segmitos"
python -m experiments.laboratories "$data" "$out" --networks "$out/networks.segmitos" \
    --begin "$out/lite0" --steps 360 1000
python -m experiments.domain --into "$out/lite.segmitos"
