"""`python -m finetune`, and `accelerate launch -m finetune`."""

import sys

from finetune.cli.main import main

sys.exit(main())
