"""Recipe keys of earlier versions and their names of today."""

RENAMED = {"train.shrink": "train.interpolate", "augment.join": "augment.concat"}
