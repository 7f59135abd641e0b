"""Levels and distortions in words, and their accuracy against the labels of the lists. Any merged
model will do: stage 1 trains no score head, and none is read here.

    python evaluate/inference_text.py --model DIR --data datasets/Gen3DHF/text/eval_quality.json \
        --video_root datasets/Gen3DHF/video_RGB --out runs/text.jsonl
"""

import sys

from lmme3dhf.cli import main

if __name__ == "__main__":
    words = ["--scores", "false", "--write_text", "true", "--maps", "false", "--evaluate", "true"]
    sys.exit(main(["predict", *words, *sys.argv[1:]]))
