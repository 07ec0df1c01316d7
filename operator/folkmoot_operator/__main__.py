"""`python -m folkmoot_operator`."""

import sys

from folkmoot_operator.main import main

sys.exit(main())
