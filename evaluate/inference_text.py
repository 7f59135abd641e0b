"""Levels and distortions in words, and their accuracy against the labels of the lists. Any merged
model will do: stage 1 trains no score head, and none is read here.

    python evaluate/inference_text.py --model DIR --data datasets/Gen3DHF/text/eval_quality.json \
        --video_root datasets/Gen3DHF/video_RGB --out runs/text.jsonl
"""

import sys

from lmme3dhf.cli.scripts import started

if __name__ == "__main__":
    sys.exit(started("inference_text.py", sys.argv[1:]))
