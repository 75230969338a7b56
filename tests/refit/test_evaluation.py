"""`evaluate`: who is told what, what collapses, what repeats, and what a user may give it.

Shapes: B scenes, K sources.
"""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch

from hpo.errors import ConfigurationError
from hpo.refit import evaluation, evaluation_files, weights
from hpo.refit.weights import Trained
from hpo.study.config import StudyConfig, facts
from hpo.study.objective import source_hash
from models.ris.estimators.ridge import RidgeMatching
from models.ris.evaluation import (
    BARTLETT,
    GUESS,
    MAXIMUM_LIKELIHOOD,
    NETWORK,
    guess,
    methods,
    score,
)
from models.ris.files.writer import drawn_parts, write_scenes
from models.ris.network.covariance_net import RisCovarianceNet
from models.ris.scene.scenes import SIZES, Scenes, draw_installation, draw_scenes
from models.ris.scene.streams import stream_seed
from models.ris.truth.scoring import Bounds
from objectives import Asked, Evaluation, Table, load, ris_evaluation
from objectives.ris_evaluation import bench, controls
from objectives.ris_evaluation.bench import SNRS_DB, Bench, network

UNIT, FULL = SIZES["unit"], SIZES["full"]
TRUTH = ("steering_BNK", "powers_BK", "positions_BK3", "noise_B", "snr_db_B")


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def net_of(config, *, width=16, layers=2, oversampling=1.0):
    torch.manual_seed(0)
    net = RisCovarianceNet(config, width=width, layers=layers, oversampling=oversampling)
    return net.eval()


def wall_of(config):
    return draw_installation(config, seeded())


def methods_of(config, net):
    ridge = RidgeMatching(wall_of(config), loading=0.1)
    return methods(config, lambda scenes: ridge(scenes.sample_BLMM), network(net))


def settings_of(size="unit", **options):
    objective = load("ris_covariance")
    chosen = {"space": "wide", "size": size}
    return StudyConfig(
        objective="ris_covariance",
        source=source_hash(objective),
        size=size,
        epochs_per_trial=12,
        space="wide",
        precision="fp32",
        on_precision_range="prune",
        seed=0,
        sampler="random",
        pruner="none",
        options={"installation": "fixed", "scenes": "", **options},
        **facts(objective, chosen),
    )


@pytest.fixture(autouse=True)
def quickly_timed(monkeypatch):
    """The table of times from one run of 4 scenes, not the median of three runs of a batch."""
    once = partial(ris_evaluation.milliseconds_per_scene, runs=1)
    monkeypatch.setattr(ris_evaluation, "milliseconds_per_scene", once)
    monkeypatch.setattr(ris_evaluation, "_TIMED", 4)


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """The file of a training of the unit size; of no training, for its weights do not matter."""
    path = tmp_path_factory.mktemp("trained") / "seed_0.pt"
    write_training(path)
    return path


def write_training(path, **options):
    objective = load("ris_covariance")
    settings = settings_of(**options).stored()
    params = dict(objective.defaults("wide"))
    about = {"study": settings, "params": params, "seed": 0, "trial": 3, "study_name": "s"}
    task = weights.build(about, torch.device("cpu"), objective)
    weights.write(
        path,
        Trained(
            about=about,
            precision="fp32",
            epochs=12,
            metrics={"J_db": -1.0},
            modules={"net": task.modules["net"].state_dict()},
        ),
    )


@pytest.mark.parametrize("index", range(8))
def test_no_method_is_handed_the_truth(index):
    method = methods_of(UNIT, net_of(UNIT))[index]
    scenes = draw_scenes(UNIT, 12, seeded(1), installation=wall_of(UNIT))
    nan = {name: torch.full_like(getattr(scenes, name), torch.nan) for name in TRUTH}
    seen = []

    def spied(which):
        def call(given):
            seen.append(all(getattr(given, name).isnan().all() for name in TRUTH))
            return which(given)

        return call

    watched = replace(
        method,
        find=spied(method.find),
        covariance=method.covariance and spied(method.covariance),
        factor=method.factor and spied(method.factor),
    )
    scored = score(watched, scenes, UNIT, Bounds.of(scenes, UNIT))
    alone_BK3 = method.find(replace(scenes, **nan))

    assert seen
    assert all(seen)
    assert torch.equal(scored.positions_BK3.nan_to_num(9), alone_BK3.nan_to_num(9))


def test_a_refinement_knows_nothing_of_the_truth_either(monkeypatch):
    import models.ris.evaluation as module

    seen = []
    plain = module.refined_positions

    def spied(positions_BK3, scenes, config):
        seen.append(all(getattr(scenes, name).isnan().all() for name in TRUTH))
        return plain(positions_BK3, scenes, config)

    monkeypatch.setattr(module, "refined_positions", spied)
    scenes = draw_scenes(UNIT, 6, seeded(1), installation=wall_of(UNIT))

    (method,) = (one for one in methods_of(UNIT, net_of(UNIT)) if one.name == BARTLETT)
    score(method, scenes, UNIT, Bounds.of(scenes, UNIT))

    assert seen == [True]


def test_a_guess_divides_the_region_among_the_sources():
    count_B = torch.tensor([1, 2, 3])
    mask_BK = torch.arange(3) < count_B.unsqueeze(1)

    found_BK3 = guess(mask_BK, FULL)

    assert torch.equal(found_BK3.isnan().all(-1), ~mask_BK)
    azimuth_BK = found_BK3[..., 0].rad2deg()
    assert azimuth_BK[0, 0].abs() < 1e-4
    torch.testing.assert_close(azimuth_BK[1, :2], torch.tensor([-30.0, 30.0]))
    torch.testing.assert_close(azimuth_BK[2], torch.tensor([-40.0, 0.0, 40.0]))
    assert (found_BK3[mask_BK][:, 1] == 0).all()
    # Halfway in reciprocal range, in which sources are uniform.
    middle_m = 2 / (1 / FULL.range_min_m + 1 / FULL.range_max_m)
    torch.testing.assert_close(found_BK3[mask_BK][:, 2], torch.full((6,), middle_m))


@pytest.mark.acceptance
def test_random_weights_collapse_and_another_test_set_does_not():
    evaluating = Bench(net_of(UNIT), UNIT, wall_of(UNIT), Asked(quick=True))
    ours = evaluating.methods[-1:]
    sets = [
        evaluating.scored(f"{snr:g} dB", evaluating.drawn(snr, seed=0), ours) for snr in SNRS_DB
    ]

    table = controls.controls(evaluating, sets)

    rows = {row[0]: dict(zip(table.head, row, strict=True)) for row in table.rows}
    plain, again = rows[NETWORK], rows["network, another test set"]
    random = rows["network, random weights"]
    deviation_m = (plain["± m"] ** 2 + again["± m"] ** 2) ** 0.5
    deviation = (plain["± ε"] ** 2 + again["± ε"] ** 2) ** 0.5
    # Two sets of 500 scenes: four of their standard errors, which 1 in 16,000 exceed.
    assert abs(again["median m"] - plain["median m"]) < 4 * deviation_m
    assert abs(again["ε"] - plain["ε"]) < 4 * deviation
    assert random["ε"] > 0.75
    assert random["median m"] > 1.5 * plain["median m"]


@pytest.mark.parametrize("width", [32, 128])
@pytest.mark.parametrize(("layers", "oversampling"), [(1, 1.8), (2, 1.2), (3, 1.8)])
def test_random_weights_of_any_network_collapse_and_raise_nothing(width, layers, oversampling):
    net = net_of(UNIT, width=width, layers=layers, oversampling=oversampling)
    scenes = draw_scenes(UNIT, 60, seeded(1), installation=wall_of(UNIT))
    random = methods_of(UNIT, controls._random(net))[-1]
    plain = methods_of(UNIT, net)[-1]

    found, kept = (score(m, scenes, UNIT, Bounds.of(scenes, UNIT)) for m in (random, plain))

    # From 1.8 times (one visit: the grid's likelihood still speaks) to 6 times, by the draw.
    assert found.epsilon_B.mean() > 1.5 * kept.epsilon_B.mean()
    assert found.refined.error_S.isfinite().all()


def test_the_test_set_of_a_seed_is_frozen():
    evaluating = Bench(net_of(UNIT), UNIT, wall_of(UNIT), Asked(quick=True))

    first, again, other = (evaluating.drawn(5.0, seed=seed) for seed in (0, 0, 1))

    assert torch.equal(first.snapshots_BLMT, again.snapshots_BLMT)
    assert not torch.equal(first.snapshots_BLMT, other.snapshots_BLMT)
    assert torch.equal(first.snr_db_B, torch.full_like(first.snr_db_B, 5.0))


def test_no_file_of_test_scenes_holds_a_scene_of_the_test_set():
    evaluating = Bench(net_of(UNIT), UNIT, wall_of(UNIT), Asked(quick=True))
    sets = [evaluating.drawn(snr_db, seed=0) for snr_db in SNRS_DB]

    for seed in range(6):
        (part,) = drawn_parts(UNIT, 100, stream="test", seed=seed, is_shared=True)
        for one in sets:
            assert not torch.equal(part.powers_BK, one.powers_BK)
    seeds = {
        stream_seed(0, stream, index) % 2**32
        for stream in ("test", "evaluation", "validation", "calibration", "ridge")
        for index in range(2000)
    }
    # The CPU's generator uses these bits alone.
    assert len(seeds) == 5 * 2000


@pytest.mark.acceptance
def test_the_full_size_is_evaluated_too():
    scenes = draw_scenes(FULL, 3, seeded(1), installation=wall_of(FULL))
    net = net_of(FULL)
    # Not ridge matching, whose 4,096 unknowns take seconds.
    found = methods(FULL, lambda given: torch.zeros(0), network(net))
    chosen = [method for method in found if method.name in (NETWORK, MAXIMUM_LIKELIHOOD)]

    scored = [score(method, scenes, FULL, Bounds.of(scenes, FULL)) for method in chosen]

    for one in scored:
        assert one.plain.error_S.isfinite().all()
        assert one.refined.error_S.isfinite().all()
        assert ((one.epsilon_B >= 0) & (one.epsilon_B <= 1)).all()


@pytest.mark.acceptance
def test_a_quick_evaluation_writes_every_table_and_figure(command, finished, tmp_path, monkeypatch):
    out = tmp_path / "out"
    # Every table has its rows from few scenes as well: what is claimed of figures holds by far.
    monkeypatch.setattr(bench, "QUICK_SCENES", 25)

    done = command("evaluate", str(finished), "--quick", "--json", "--out", str(out))

    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert list(found["tables"]) == [
        *("median_plain", "median_refined", "ratio_one_source", "outliers", "beyond_half_beam"),
        *("accuracy", "groups", "time", "controls", "counts", "snapshots"),
    ]
    with (out / "accuracy.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {row["scenes"] for row in rows} == {f"{snr:g} dB" for snr in SNRS_DB}
    assert len({row["method"] for row in rows}) == 9
    text = (out / "evaluation.md").read_text()
    for name in ("error_over_snr", "pseudospectrum", "positions"):
        assert (out / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        assert f"]({name}.png)" in text
    assert any("against greedy maximum likelihood" in remark for remark in found["remarks"])
    # What floats give twice, down to where other threads add in another order.
    by_method = {row["method"]: row["all"] for row in found["tables"]["median_plain"]}
    assert by_method[NETWORK] < by_method["back-projection, MUSIC"]


def test_another_size_than_the_trainings_is_said(command, finished):
    done = command("evaluate", str(finished), "--size", "base")

    assert done.returncode == 2
    assert "was trained at size 'unit', not 'base'" in done.stderr


def test_scenes_of_another_size_are_refused(finished, tmp_path):
    path = tmp_path / "tiny.npz"
    tiny = SIZES["tiny"]
    parts = drawn_parts(tiny, 20, stream="test", seed=0, is_shared=True)
    write_scenes(path, parts, 20, wavelength_m=tiny.wavelength_m)

    with pytest.raises(ConfigurationError, match=r"6×6.*scenes of its own size") as raised:
        evaluation.evaluate(finished, samples=path)

    assert "--size" not in str(raised.value)


def scenes_file(path, count=60, *, labelled=True):
    import numpy as np

    parts = drawn_parts(UNIT, count, stream="test", seed=0, is_shared=True)
    write_scenes(path, parts, count, wavelength_m=UNIT.wavelength_m)
    if not labelled:
        with np.load(path) as found:
            kept = {n: found[n] for n in ("snapshots", "codes", "channel", "wavelength_m")}
        np.savez(path, **kept)
    return path


@pytest.mark.acceptance
def test_labelled_scenes_of_a_file_are_scored(finished, tmp_path):
    found = evaluation.evaluate(finished, samples=scenes_file(tmp_path / "s.npz"), quick=True)

    tables = {table.name: table for table in found.evaluation.tables}
    (head, rows) = tables["median_plain"].head, tables["median_plain"].rows
    assert list(head) == ["method", "s.npz", "ms a scene"]
    assert len(rows) == 9
    assert all(row[1] > 0 for row in rows)
    evaluation_files.write(found, tmp_path / "out")
    assert (tmp_path / "out" / "positions.png").exists()


def test_measured_scenes_without_labels_give_positions_and_say_so(finished, tmp_path):
    path = scenes_file(tmp_path / "measured.npz", 8, labelled=False)

    found = evaluation.evaluate(finished, samples=path, quick=True)

    (table,) = found.evaluation.tables
    assert table.name == "positions"
    assert [row[0] for row in table.rows] == sorted(row[0] for row in table.rows)
    assert {row[0] for row in table.rows} == set(range(8))
    assert len(table.head) == 9
    assert GUESS not in {row[1] for row in table.rows}
    for row in table.rows:  # maximum likelihood is refined already
        assert (row[3:6] == row[6:9]) == (row[1] == MAXIMUM_LIKELIHOOD)
    evaluation_files.write(found, tmp_path / "out")
    assert (tmp_path / "out" / "positions.png").exists()
    assert "without labels" in found.evaluation.remarks[0]
    assert "estimated" in found.evaluation.remarks[0]


def test_the_number_of_sources_that_a_file_says_is_taken(finished, tmp_path):
    import numpy as np

    path = scenes_file(tmp_path / "measured.npz", 12, labelled=False)
    count_S = np.arange(12) % 2 + 1
    with np.load(path) as found:
        arrays = dict(found)
    np.savez(path, **arrays, count=count_S)

    found = evaluation.evaluate(finished, samples=path, quick=True)

    (table,) = found.evaluation.tables
    given = [row for row in table.rows if row[1] == NETWORK]
    assert [sum(row[0] == scene for row in given) for scene in range(12)] == count_S.tolist()
    assert "is the file's" in found.evaluation.remarks[0]


def test_a_seed_of_the_test_set_beside_a_file_is_refused(finished, tmp_path):
    with pytest.raises(ConfigurationError, match="--seed"):
        evaluation.evaluate(finished, samples=scenes_file(tmp_path / "s.npz", 8), seed=1)


def test_a_folder_that_cannot_be_written_to_is_told_before_the_work(command, finished):
    done = command("evaluate", str(finished), "--out", "/proc/nowhere")

    assert done.returncode == 2
    assert "'/proc/nowhere' cannot be written to" in done.stderr


@pytest.mark.acceptance
def test_what_was_trained_on_a_file_is_evaluated_on_its_validation_part(tmp_path):
    scenes = scenes_file(tmp_path / "train.npz", 200)
    settled = load("ris_covariance").settle(
        {"installation": "fixed", "scenes": str(scenes)}, "unit", "fp32"
    )
    path = tmp_path / "seed_0.pt"
    write_training(path, **settled)

    found = evaluation.evaluate(path, quick=True)

    remark, *_ = found.evaluation.remarks
    assert remark.startswith("20 scenes of train.npz, validation part, by which")
    scenes.rename(tmp_path / "moved.npz")
    with pytest.raises(ConfigurationError, match=r"cannot be evaluated.*train\.npz"):
        evaluation.evaluate(path, quick=True)
    other = evaluation.evaluate(path, samples=scenes_file(tmp_path / "other.npz", 20), quick=True)
    assert other.evaluation.remarks[0] == "20 scenes of other.npz"


@pytest.mark.acceptance
def test_sources_outside_of_the_region_are_warned_of_and_estimates_at_its_edge_counted(
    finished, tmp_path
):
    import numpy as np

    path = scenes_file(tmp_path / "far.npz", 30)
    with np.load(path) as found:
        arrays = dict(found)
    count = int(np.isfinite(arrays["positions"][..., 0]).sum())
    arrays["positions"][..., 2] = np.where(np.isnan(arrays["positions"][..., 2]), np.nan, 20.0)
    np.savez(path, **arrays)
    blind = {n: arrays[n] for n in ("snapshots", "codes", "channel", "wavelength_m")}
    np.savez(tmp_path / "blind.npz", **blind)

    labelled = evaluation.evaluate(finished, samples=path, quick=True).evaluation
    unlabelled = evaluation.evaluate(finished, samples=tmp_path / "blind.npz").evaluation

    assert f"{count} of {count} true sources lie OUTSIDE" in " ".join(labelled.remarks)
    for one in (labelled, unlabelled):
        assert "±60° azimuth, ±30° elevation and 0.3 to 0.9 m" in " ".join(one.remarks)
    assert f"lie: {NETWORK}" in unlabelled.remarks[-1]


@pytest.mark.acceptance
def test_another_evaluation_leaves_nothing_of_the_first_but_what_others_put_there(
    finished, tmp_path
):
    out = tmp_path / "out"
    labelled = evaluation.evaluate(finished, samples=scenes_file(tmp_path / "s.npz", 20))
    first = labelled.write(out)
    (out / "mine.csv").write_text("kept")
    measured = scenes_file(tmp_path / "m.npz", 4, labelled=False)

    second = evaluation.evaluate(finished, samples=measured).write(out)

    assert len(first) > len(second)
    assert {file.name for file in out.iterdir()} == {*(file.name for file in second), "mine.csv"}
    assert len(repr(labelled)) < 1000


def evaluated(finished, *tables):
    """An evaluation of these tables alone."""
    return evaluation_files.Evaluated(
        file=finished,
        trained=weights.read(finished),
        evaluation=Evaluation(tables=tables),
    )


def test_what_no_evaluation_wrote_stays(finished, tmp_path):
    (tmp_path / "measured.csv").write_text("mine")
    others = {"tool": "another", "files": ["measured.csv"]}
    (tmp_path / "evaluation.json").write_text(json.dumps(others))
    table = Table(name="one", title="One", head=("a",), rows=[(1,)])

    evaluated(finished, table).write(tmp_path)
    listed = json.loads((tmp_path / "evaluation.json").read_text())
    odd = ["old.csv", "../measured.csv", "\0.csv", "x" * 300 + ".csv", 7, "ONE.csv"]
    (tmp_path / "old.csv").mkdir()
    (tmp_path / "evaluation.json").write_text(json.dumps({**listed, "files": odd}))
    evaluated(finished, table).write(tmp_path)

    assert (tmp_path / "measured.csv").read_text() == "mine"
    assert (tmp_path / "old.csv").is_dir()
    assert (tmp_path / "one.csv").read_text().split() == ["a", "1"]


def test_cells_of_numpy_and_torch_are_written_as_numbers(finished, tmp_path):
    import numpy as np

    cells = (np.float32(0.5), np.int64(3), torch.tensor(2.0), float("nan"), Path("p"))
    table = Table(name="one", title="One", head=tuple("abcde"), rows=[cells])

    evaluated(finished, table).write(tmp_path)

    (row,) = json.loads((tmp_path / "evaluation.json").read_text())["tables"]["one"]
    assert row == {"a": 0.5, "b": 3, "c": 2.0, "d": None, "e": "p"}
    with pytest.raises(ValueError, match="table 'one' has a row of 1 cells under a head of 2"):
        Table(name="one", title="One", head=("a", "b"), rows=[(1,)])


def test_a_folder_is_taken_away_only_where_it_was_made_in_vain(finished, tmp_path):
    (tmp_path / "there").mkdir()
    for name in ("there", "new"):
        with pytest.raises(InterruptedError), evaluation_files.prepared(finished, tmp_path / name):
            raise InterruptedError

    assert [folder.name for folder in tmp_path.iterdir()] == ["there"]


def test_an_objective_of_another_kind_is_named(finished):
    with pytest.raises(
        ConfigurationError, match="training of 'ris_covariance', not of 'quadratic'"
    ):
        evaluation.evaluate(finished, objective="quadratic")


def test_a_size_that_does_not_exist_is_not_advised(finished):
    with pytest.raises(ConfigurationError, match="has the sizes unit, tiny, base, full"):
        evaluation.evaluate(finished, size="huge")


def test_a_truncated_or_foreign_file_is_told_apart(command, finished, tmp_path):
    cut = tmp_path / "cut.pt"
    cut.write_bytes(finished.read_bytes()[:-3000])
    foreign = tmp_path / "foreign.pt"
    torch.save({"weights": torch.zeros(3)}, foreign)

    for path, words in ((cut, "cut off"), (foreign, "no finished training")):
        done = command("evaluate", str(path))

        assert done.returncode == 2
        assert words in done.stderr
        assert "Traceback" not in done.stderr
        assert len(done.stderr.splitlines()) <= 3


def test_an_objective_without_an_evaluation_says_so(tmp_path):
    objective = load("quadratic")
    chosen = {"space": "wide", "size": "tiny"}
    settings = {
        **settings_of().stored(),
        "objective": "quadratic",
        "source": source_hash(objective),
        "size": "tiny",
        "options": {},
        **facts(objective, chosen),
    }
    about = {"study": settings, "params": dict(objective.defaults("wide")), "seed": 0}
    task = weights.build(about, torch.device("cpu"), objective)
    path = tmp_path / "seed_0.pt"
    modules = {name: module.state_dict() for name, module in task.modules.items()}
    weights.write(
        path, Trained(about=about, precision="fp32", epochs=1, metrics={}, modules=modules)
    )

    with pytest.raises(ConfigurationError, match="has no evaluation"):
        evaluation.evaluate(path)


def test_an_evaluation_stops_when_it_is_asked_to(finished):
    with pytest.raises(InterruptedError):
        evaluation.evaluate(finished, must_stop=lambda: True)


def test_blinded_scenes_keep_what_was_measured():
    scenes = draw_scenes(UNIT, 3, seeded(1), installation=wall_of(UNIT))

    blind = scenes.blinded()

    for name in Scenes.__dataclass_fields__:
        if name in TRUTH:
            assert getattr(blind, name).isnan().all()
        elif name != "installation":
            assert torch.equal(getattr(blind, name), getattr(scenes, name))
