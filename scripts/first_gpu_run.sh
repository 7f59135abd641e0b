#!/usr/bin/env bash
# What to run first on a machine with one GPU, unattended and in under an hour: whether each part
# works there, and its figures.
#
#   scripts/first_gpu_run.sh MODEL DATA
#
# MODEL is a folder or hub id of Qwen2.5-VL, DATA a data set with its lists (datasets/README.md).
# Variables: OUT (output/first_gpu_run), CONFIG (configs/paper.yaml), STEPS of stages 1 and 2 (200)
# and of each preset (PRESET_STEPS, 20), CLIPS to answer (64), MINUTES in all (60; a step gets a
# third of them at most), and for scripts/bench.py its DEVICE (cuda) and further options (BENCH).
#
# A step that fails does not end the run. Each writes OUT/STEP.log, and OUT/table.md has one row a
# step; the exit status is 1 where one failed. In the same OUT a finished stage is not trained again.
set -uo pipefail
if [ $# -ne 2 ]; then
    sed -n '2,/^set/s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" >&2
    exit 2
fi
here="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
model=$1 data=$2
out=${OUT:-output/first_gpu_run}
total=$((${MINUTES:-60} * 60))
python="$here/scripts/python.sh"
lmme3dhf=("$python" -m lmme3dhf.cli)
given=(--config "${CONFIG:-$here/configs/paper.yaml}" --data.root "$data")
failed=0
mkdir -p "$out"
printf '| step | result | seconds | figure |\n|---|---|---|---|\n' | tee "$out/table.md"

# step NAME PATTERN COMMAND...: the figure is what the pattern finds last in the log; where it finds
# nothing, or the command fails, the log's last line.
step() {
    local name=$1 pattern=$2 began=$SECONDS limit=$((total - SECONDS)) status=0 result=passed
    local figure last
    shift 2
    [ "$limit" -lt $((total / 3)) ] || limit=$((total / 3))
    if [ "$limit" -gt 0 ]; then
        timeout "$limit" "$@" < /dev/null > "$out/$name.log" 2>&1 || status=$?
        last=$(grep . "$out/$name.log" | tail -n 1)
        figure=$(grep -oE -- "$pattern" "$out/$name.log" | tail -n 1)
        figure=${figure:-$last}
        [ -z "${TORCH_LOGS:-}" ] || figure+=", $(grep -c Recompiling "$out/$name.log") recompiles"
    fi
    if [ "$limit" -le 0 ]; then
        result='not run' figure='no time left; raise MINUTES'
    elif [ "$status" -eq 124 ]; then
        result=failed figure="stopped after $limit s; raise MINUTES"
    elif [ "$status" -ne 0 ]; then
        result=failed figure="status $status: $last"
    fi
    [ "$result" = passed ] || failed=1
    printf '| %s | %s | %d | %s |\n' "$name" "$result" $((SECONDS - began)) "${figure//|//}" |
        tee -a "$out/table.md"
}

# train STAGE MODEL NAME STEPS OPTIONS...
train() {
    step "$3" 'loss [0-9.]+, .* GB' "${lmme3dhf[@]}" train "$1" "${given[@]}" --model "$2" --out "$out/$3" \
        "--$1.trainer.max_steps" "$4" "${@:5}"
}

step doctor '[0-9]+ faults, .*' "${lmme3dhf[@]}" doctor --model "$model"
step features '[0-9]+ clips, about .*B' "${lmme3dhf[@]}" data features "${given[@]}" --model "$model"
train text "$model" stage1 "${STEPS:-200}"
step merge1 '(against the trained|folded in it).*' "$here/merge_lora.sh" "$out/stage1"
train score "$out/stage1/merged" stage2 "${STEPS:-200}"
step merge2 '(against the trained|folded in it).*' "$python" "$here/merge_mlp.py" "$out/stage2"

# With pad_to a compiled model meets few shapes; the logs say what it was compiled again for.
export TORCH_LOGS=recompiles
for preset in "$here"/configs/presets/*.yaml; do
    train text "$model" "preset_$(basename "$preset" .yaml)" "${PRESET_STEPS:-20}" --config "$preset"
done
unset TORCH_LOGS

# The same clips, their distortions by likelihood and by a written reply.
"$python" -c 'import json, sys
rows = json.load(open(sys.argv[1], encoding="utf-8"))[: int(sys.argv[3])]
json.dump(rows, open(sys.argv[2], "w", encoding="utf-8"))' \
    "$data/distortion/eval.json" "$out/clips.json" "${CLIPS:-64}"
for answers in likelihood reply; do
    step "$answers" '"accuracy": [0-9.]+' "${lmme3dhf[@]}" predict --model "$out/stage1/merged" --scores false \
        --ratings false --maps false --data "$out/clips.json" --video_root "$data/video_RGB" \
        --answers "$answers" --evaluate true --out "$out/$answers.jsonl"
done
step bench '.*' "$python" "$here/scripts/bench.py" --device "${DEVICE:-cuda}" \
    ${BENCH:---geometry 7b --steps 50} --out "$out/bench.json"

printf '\n%s\n' "$out/table.md:"
cat "$out/table.md"
exit "$failed"
