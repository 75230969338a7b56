"""An objective against the contract that `objectives` states: what it declares, and what it does.

`declared` takes no time and stands before every study; `rehearsal` builds and trains a little.
Border: findings as data. Prints nothing and sees no database.
"""

from hpo.contract.declarations import Finding as Finding
from hpo.contract.declarations import declared as declared
