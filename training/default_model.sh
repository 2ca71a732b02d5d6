#!/usr/bin/env bash
# Makes the default model, from prepared data and random weights: twelve runs, most from where the one before has come to.
#
#   training/default_model.sh DATA [--set KEY=VALUE ...]
#
# DATA holds nwpu_vhr10/, buildings/china/, buildings/khokana/, airplanes/hrplanes/ and ships/optical/, each with its
# images and one COCO file. It takes some eighteen hours of one core with fast bfloat16, and for runs 11 and 12 minutes of
# a GPU or some three hours more; two cores share the work by --set running.devices=2 --set running.threads=1.
# Stopped (Ctrl-C) and started again, it goes on where it was. The model is runs/tiny-13-averaged.safetensors.
# docs/models.md tells what each run brought.
set -euo pipefail
root=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd -P)
[ $# -ge 1 ] || { sed -n '2,/^set/{/^set/d;s/^# \?//p}' "${BASH_SOURCE[0]}" >&2; exit 2; }
data=$1
for_all=("${@:2}")
python=$root/.venv/bin/python
[ -x "$python" ] || python=python

# run NUMBER RECIPE [--set KEY=VALUE ...]: runs/tiny-NUMBER, which a finished run leaves as it is.
run() {
  [ -e "runs/tiny-$1/final.safetensors" ] ||
    "$python" "$root/training/finetune.py" "$root/training/recipes/$2.toml" --data "$data" --name "tiny-$1" \
      "${@:3}" "${for_all[@]}"
}

# average FIRST SECOND SHARE NAME: runs/NAME.safetensors, with SHARE of the second model.
average() {
  [ -e "runs/$4.safetensors" ] ||
    "$python" "$root/training/average.py" "$1" "$2" --share "$3" -o "runs/$4.safetensors"
}

# What there is, as it is; then each class as often as any other. Crops of 384 px.
run 1 tiny-start --set model.start= --set optimization.steps=3300 --set optimization.warmup_steps=300 \
  --set datasets.synthetic.balanced=false --set datasets.nwpu.balanced=false --set datasets.synthetic.weight=0.45 \
  --set datasets.china.weight=0.15 --set datasets.khokana.weight=0.1 --set optimization.seed=1
run 2 tiny-start

# Airplanes, ships at sea and open water; more houses, and instances pasted into other images; and on. Crops of 512 px.
run 3 tiny-grow --set model.start=runs/tiny-2/final.safetensors --set optimization.steps=2600 \
  --set optimization.lr=6e-4 --set optimization.seed=3 --set datasets.synthetic.weight=0.3 \
  --set datasets.places.weight=0.08 --set datasets.nwpu.weight=0.36 --set datasets.nwpu.copy_paste=0 \
  --set datasets.china.weight=0.12 --set 'datasets.china.scale=[0.7, 2.0]' --set datasets.khokana.weight=0.06 \
  --set 'datasets.khokana.scale=[0.5, 2.0]' --set datasets.hrplanes.weight=0.1 --set datasets.ships.weight=0.05
run 4 tiny-grow --set model.start=runs/tiny-3/final.safetensors --set optimization.steps=2300 \
  --set optimization.seed=4 --set datasets.synthetic.weight=0.22 --set datasets.nwpu.weight=0.26 \
  --set datasets.china.weight=0.24 --set datasets.hrplanes.weight=0.09 --set datasets.ships.weight=0.04
run 5 tiny-grow

# Finer pixels. Each run unlearns some of what the one before knew, and their average gets it back.
weights=(
  --set datasets.synthetic.weight=0.25 --set datasets.nwpu.weight=0.24 --set datasets.china.weight=0.22
  --set datasets.khokana.weight=0.12 --set datasets.ships.weight=0.06
)
run 6 tiny --set model.start=runs/tiny-5/final.safetensors --set optimization.optimizer=adamw \
  --set optimization.lr=9e-4 --set optimization.steps=4200 --set optimization.warmup_steps=100 \
  --set optimization.seed=7 "${weights[@]}"
average runs/tiny-5/final.safetensors runs/tiny-6/final.safetensors 0.75 tiny-6-averaged

# By Muon. (Run 7 brought nothing, and is not among them.)
run 8 tiny --set model.start=runs/tiny-6-averaged.safetensors --set optimization.steps=3400 \
  --set optimization.seed=9 "${weights[@]}"
run 9 tiny --set model.start=runs/tiny-8/final.safetensors --set optimization.steps=3400 --set optimization.seed=10
average runs/tiny-8/final.safetensors runs/tiny-9/final.safetensors 0.75 tiny-9-averaged

# More of it, from the average: the run in which the box branch learned to look twice.
run 10 tiny
average runs/tiny-9-averaged.safetensors runs/tiny-10/final.safetensors 0.75 tiny-10-averaged

# Larger batches, as a GPU takes them: twice the same with other seeds, and the average of all three.
for number in 11 12; do
  run $number tiny --set model.start=runs/tiny-10-averaged.safetensors --set optimization.batch=16 \
    --set optimization.steps=540 --set optimization.lr=8e-4 --set optimization.warmup_steps=30 \
    --set optimization.ema_decay=0.998 --set optimization.seed=$((number + 4)) \
    --set datasets.synthetic.weight=0.16 --set datasets.nwpu.weight=0.27 --set datasets.china.weight=0.26 \
    --set datasets.khokana.weight=0.12
done
average runs/tiny-11/final.safetensors runs/tiny-12/final.safetensors 0.5 tiny-11-12
average runs/tiny-10-averaged.safetensors runs/tiny-11-12.safetensors 0.75 tiny-12-averaged

# On generated scenes with open ground that is no roof: courts of earth, slabs, basins.
run 13 tiny --set model.start=runs/tiny-12-averaged.safetensors --set optimization.steps=3000 \
  --set optimization.lr=5e-4 --set optimization.seed=17
average runs/tiny-12-averaged.safetensors runs/tiny-13/final.safetensors 0.75 tiny-13-averaged

"$python" "$root/training/evaluate.py" --model runs/tiny-13-averaged.safetensors --data "$data" --card \
  --recipe "$root/training/recipes/tiny.toml"
