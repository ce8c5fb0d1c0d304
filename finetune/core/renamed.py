"""Recipe keys of earlier versions and their current names."""

RENAMED = {"train.shrink": "train.interpolate", "augment.join": "augment.concat", "data.lowercase": "data.text.case"}
NEW_VALUES = {"data.lowercase": "lower converts to lower case, keep (the default) changes nothing"}
