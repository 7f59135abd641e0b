"""Saliency maps of every clip of a list, and their agreement with the ground truth.

    python evaluate/inference_saliency.py --model DIR \
        --data datasets/Gen3DHF/text/eval_quality.json --video_root datasets/Gen3DHF/video_RGB \
        --saliency_maps datasets/Gen3DHF/saliency_map --out runs/saliency.jsonl
"""

import sys

from lmme3dhf.cli.scripts import started

if __name__ == "__main__":
    sys.exit(started("inference_saliency.py", sys.argv[1:]))
