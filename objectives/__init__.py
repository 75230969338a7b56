"""The contract of objectives, the shipped objectives, and the loading of one by its name.

An `Objective` declares the search space and builds a `Task` from parameters; a `Task` defines how
one trial trains. Neither deals with precision, GPUs, databases or pruning: the service owns those.
An objective is one file that ends in `objective = MyObjective()`.
"""

from objectives._bound import bound, options_of, unbound
from objectives._contract import Context, Group, Objective, Prediction, Task, Term
from objectives._evaluation import Asked, CannotEvaluate, Evaluation, Figure, Table
from objectives._folder import NoObjective
from objectives._loading import (
    DEFAULT,
    add_folder,
    add_working_folder,
    file_hash,
    files_of,
    folder_of,
    hidden_beside,
    is_importing,
    load,
    names,
)
from objectives._options import AUTO, Option, complete, left_to_study
from objectives._space import Choice, Float, Int, Params, Space, Trial

__all__ = [
    "AUTO",
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
    "NoObjective",
    "Objective",
    "Option",
    "Params",
    "Prediction",
    "Space",
    "Table",
    "Task",
    "Term",
    "Trial",
    "add_folder",
    "add_working_folder",
    "bound",
    "complete",
    "file_hash",
    "files_of",
    "folder_of",
    "hidden_beside",
    "is_importing",
    "left_to_study",
    "load",
    "names",
    "options_of",
    "unbound",
]
