"""The contract: what an objective is, and how one is found by its name.

An `Objective` says what to search and builds a `Task` from parameters; a `Task` says how one
trial of it trains. Neither says anything of precision, GPUs, databases or pruning: the service
owns those. An objective is one file that ends in `objective = MyObjective()`.
"""

from objectives._contract import Context, Group, Objective, Option, Prediction, Task, Term
from objectives._evaluation import Asked, CannotEvaluate, Evaluation, Figure, Table
from objectives._loading import DEFAULT, load, names
from objectives._space import Choice, Float, Int, Params, Space, Trial

__all__ = [
    "DEFAULT",
    "Asked",
    "CannotEvaluate",
    "Choice",
    "Context",
    "Evaluation",
    "Figure",
    "Float",
    "Group",
    "Int",
    "Objective",
    "Option",
    "Params",
    "Prediction",
    "Space",
    "Table",
    "Task",
    "Term",
    "Trial",
    "load",
    "names",
]
