"""The smallest recipe as YAML."""

# Of four lines, so that a setting appended by a test is on line 5.
RECIPE = """\
model: {base: nowhere}
data: {train: [a.jsonl],
       valid: [b.jsonl],
       test: [c.jsonl]}
"""
