"""The closed lists of Gen3DHF: the level words, the distortion categories and the views.

Sources: the rating levels are those of the paper's Section 4.2, the categories are the nine of
Section 3.3, the views are the three snapshots of the annotation interface (Section 3.2).
"""

from dataclasses import dataclass

# From worst to best; the index is the level (Eq. 4).
LEVELS = ("bad", "poor", "fair", "good", "excellent")

NO_DISTORTION = "No Distortion"
DISTORTIONS = (
    "Eye Distortions",
    "Mouth Distortions",
    "Hair Distortions",
    "Facial Feature Distortions",
    "Head Structure Distortions",
    "Overlap or Blending Issues",
    "Blurring / Exposure / Grain",
    "Accessories or Cloth Distortions",
    NO_DISTORTION,
)


@dataclass(frozen=True)
class View:
    """One snapshot of the turntable: its yaw and where in the clip it stands.

    Attributes:
        yaw_deg: Rotation of the head in degrees; 0 is frontal.
        clip_fraction: Position in the clip, 0 for the first frame and 1 for the last (the clip
            turns from -90 to +90 degrees).
    """

    yaw_deg: int
    clip_fraction: float


VIEWS = (View(-45, 0.25), View(0, 0.5), View(45, 0.75))
