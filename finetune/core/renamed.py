"""Recipe keys of earlier versions and their current names."""

RENAMED = {"train.shrink": "train.interpolate", "augment.join": "augment.concat"}
