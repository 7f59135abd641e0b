"""Downloads the released Gen3DHF; needs huggingface_hub and nothing else of the environment.

HF_ENDPOINT chooses a mirror and HF_TOKEN gives access where it is asked for. The same command goes
on after a stop. Exit status: 0 all there, 1 it could not be done, 2 wrong arguments, 130 stopped
with Ctrl-C.
"""

import argparse
import sys

from lmme3dhf.errors import UserError


def main(argv: list[str] | None = None) -> int:
    """Downloads what the words of the command line name; returns the exit status."""
    try:
        _download(argv)
    except ModuleNotFoundError as error:
        told, status = f"needs {error.name}: pip install {error.name}", 1
    except (UserError, OSError) as error:
        told, status = error, 1
    except KeyboardInterrupt:
        told, status = "stopped; the same command goes on", 130
    else:
        return 0
    print(f"download_dataset.py: {told}", file=sys.stderr)
    return status


def _download(argv: list[str] | None) -> None:
    from lmme3dhf.data.download import PARTS, REPO_ID, download

    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--target_dir", default="./Gen3DHF", help="folder (default: ./Gen3DHF)")
    parser.add_argument(
        "--dataset",
        nargs="+",
        help=f"some of {', '.join(PARTS)} (default: image video_RGB saliency_map, and the two "
        "label files where the hub has them)",
    )
    parser.add_argument("--repo_id", default=REPO_ID, help=f"on the hub (default: {REPO_ID})")
    parser.add_argument("--revision", default="main", help="branch, tag or commit (default: main)")
    parser.add_argument("--keep_archives", action="store_true", help="keep them once unpacked")
    parser.add_argument("--dry_run", action="store_true", help="only list what would be done")
    args = parser.parse_args(argv)
    download(
        args.target_dir,
        args.dataset,
        repo_id=args.repo_id,
        revision=args.revision,
        keep_archives=args.keep_archives,
        dry_run=args.dry_run,
    )


if __name__ == "__main__":
    sys.exit(main())
