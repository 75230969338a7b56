"""An objective whose search spaces depend on its option `model`; for tests through the program."""

from __future__ import annotations

from collections.abc import Mapping

from objectives import AUTO, Context, Float, Int, Objective, Option, Params, Space
from objectives.quadratic import QuadraticTask

_LR = Float(low=1e-3, high=1e-1, default=1e-2, log=True)
SPACES: Mapping[str, Mapping[str, Space]] = {
    "a": {"wide": {"lr": _LR, "curvature": Float(low=0.5, high=2.0, default=1.0)}},
    "b": {"wide": {"lr": _LR, "depth": Int(low=1, high=4, default=2)}},
}


class Models(Objective):
    """The distance of a weight from 3, by one of two models."""

    name, metric, direction, sizes = "models", "distance", "minimize", ("tiny",)
    spaces = SPACES["a"]
    options = {
        "model": Option(
            default=AUTO,
            choices=(AUTO, "a", "b"),
            help="what is trained",
            before="a",
            names_study=True,
        ),
        "noise": Option(default="none", choices=("none", "some"), help="of the data"),
    }

    def spaces_for(self, options: Mapping[str, str]) -> Mapping[str, Space]:
        return SPACES[options["model"]]

    def settle(self, options: Mapping[str, str], size: str, precision: str) -> Mapping[str, str]:
        return {**options, "model": "a"} if options["model"] == AUTO else options

    def reasons(self, options: Mapping[str, str], size: str) -> Mapping[str, str]:
        return {"model": f"the best at size {size}"}

    def build(self, params: Params, context: Context) -> QuadraticTask:
        if set(params) != set(self.spaces["wide"]):
            raise ValueError(f"{sorted(params)} of the spaces {self.spaces}")
        return QuadraticTask({"curvature": 1.0 / params.get("depth", 1), **params}, context)


objective = Models()
