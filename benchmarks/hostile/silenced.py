"""A trial turns off all logging, makes every warning an error, and replaces standard error.

Right: six complete trials with their values; the trials after it log and warn as before.
"""

import io
import logging
import sys
import warnings

from calm import Calm, CalmTask

EXIT, CHECK, VALUES = 0, 0, "calm"


class Task(CalmTask):
    def __init__(self, params, context):
        super().__init__(params, context)
        assert sys.stderr is sys.__stderr__, "another trial has taken standard error"
        warnings.warn("a warning is no error", stacklevel=2)
        if self.is_hostile:
            logging.disable(logging.CRITICAL)
            logging.shutdown()
            warnings.simplefilter("error")
            sys.stderr = io.StringIO()


class Hostile(Calm):
    task = Task


objective = Hostile()
