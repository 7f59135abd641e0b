"""Saliency maps of every clip of a list, and their agreement with the ground truth.

    python evaluate/inference_saliency.py --model DIR \
        --data datasets/Gen3DHF/text/eval_quality.json --video_root datasets/Gen3DHF/video_RGB \
        --saliency_maps datasets/Gen3DHF/saliency_map --out runs/saliency.jsonl
"""

import sys

from lmme3dhf.cli import main

if __name__ == "__main__":
    maps = ["--ratings", "false", "--answers", "none", "--maps", "true", "--evaluate", "true"]
    sys.exit(main(["predict", *maps, *sys.argv[1:]]))
