"""Grid tasks: rules that do what they say, a split that holds, files that are read or refused."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from models.arc.encoding import PAD, SYMBOLS, encode
from models.arc.files import FileTask, read_file, read_folder
from models.arc.rules import FAMILIES, draw_pair, draw_rule
from models.arc.sources import DrawnTasks, FileTasks
from models.arc.tasks import COLOURS, Pair, is_held_out

CPU = torch.device("cpu")


def rng(*seed: int) -> np.random.Generator:
    return np.random.default_rng(seed or 0)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("canvas", [4, 6, 10])
def test_pairs_of_a_family_follow_its_rule_within_the_canvas(family, canvas):
    generator = rng(1)
    for _ in range(20):
        rule = FAMILIES[family](generator)
        pair = draw_pair(rule, generator, canvas=canvas)

        assert np.array_equal(rule.apply(pair.input), pair.output)
        assert max(*pair.input.shape, *pair.output.shape) <= canvas
        for grid in pair:
            assert grid.min() >= 0 and grid.max() < COLOURS


def test_nearly_every_pair_shows_a_change():
    generator = rng(2)
    pairs = [
        draw_pair(draw_rule(generator, held_out=False), generator, canvas=6) for _ in range(500)
    ]

    unchanged = sum(np.array_equal(*pair) for pair in pairs)

    # A draw is repeated up to 20 times; what is left are grids of one colour, say.
    assert unchanged <= 2


def test_no_rule_is_both_trained_on_and_held_out():
    generator = rng(3)
    keys = {held_out: set() for held_out in (True, False)}
    for held_out, found in keys.items():
        found |= {draw_rule(generator, held_out=held_out).key for _ in range(2000)}

    assert len(keys[True]) > 300
    assert not keys[True] & keys[False]
    # Every family can be drawn on both sides.
    for found in keys.values():
        assert {key[0] for key in found} == set(FAMILIES)


def test_no_two_rules_do_the_same():
    generator = rng(5)
    rules = [draw_rule(generator, held_out=held_out) for held_out in (True, False) * 3000]
    by_key = {rule.key: rule for rule in rules}
    grids = [rng(6, i).integers(0, 10, (5, 6)) * np.pad(np.ones((3, 4), int), 1) for i in range(6)]

    done = {str([rule.apply(grid).tolist() for grid in grids]) for rule in by_key.values()}

    assert len(by_key) > 1300
    assert len(done) == len(by_key)


def test_a_block_keeps_its_demonstrations_and_changes_its_queries():
    source = DrawnTasks(canvas=6, demonstrations=2, seed=0)

    first, second = (source.training(3, 2, block=rng(7), query=rng(8, step)) for step in (0, 1))

    for one, other in zip(first, second, strict=True):
        assert one.name == other.name
        for mine, theirs in zip(one.demonstrations, other.demonstrations, strict=True):
            assert all(map(np.array_equal, mine, theirs))
    assert any(
        not np.array_equal(one.queries[0].input, other.queries[0].input)
        for one, other in zip(first, second, strict=True)
    )


def test_validation_tasks_are_the_same_whoever_asks_and_none_is_trained_on():
    first, second = (
        DrawnTasks(canvas=6, demonstrations=2, seed=0).validation(50) for _ in range(2)
    )
    trained = DrawnTasks(canvas=6, demonstrations=2, seed=0).training(
        500, 1, block=rng(0), query=rng(1)
    )

    assert [task.name for task in first] == [task.name for task in second]
    assert np.array_equal(first[-1].queries[0].output, second[-1].queries[0].output)
    assert not {task.name for task in first} & {task.name for task in trained}


def grid(*rows: str) -> list[list[int]]:
    return [[int(cell) for cell in row] for row in rows]


def content(**changes):
    pair = {"input": grid("01", "20"), "output": grid("10")}
    return {"train": [pair, pair], "test": [pair], **changes}


def test_a_task_file_is_read_as_it_is_written(tmp_path):
    file = tmp_path / "abc.json"
    file.write_text(json.dumps(content()))

    task = read_file(file)

    assert (task.name, len(task.train), len(task.test), task.side) == ("abc", 2, 1, 2)
    assert task.train[0].output.tolist() == [[1, 0]]


GOOD = {"input": [[1]], "output": [[1]]}


@pytest.mark.parametrize(
    ("broken", "place"),
    [
        ("{", "line 1, column 2: no JSON"),
        ("\xff", "line 1, column 1: no JSON"),
        ("[" * 100_000, "nested too deeply"),
        ([], "a list; an object with train, test is wanted"),
        ({"train": [GOOD]}, "test is missing"),
        ({"train": [], "test": [GOOD]}, r"train is \[\]"),
        ({"train": [GOOD, 3], "test": [GOOD]}, r"train\[1\] is 3"),
        ({"train": [{"input": [[1]]}], "test": [GOOD]}, r"train\[0\] is"),
        ({"train": [{**GOOD, "output": 5}], "test": [GOOD]}, r"train\[0\].output is 5"),
        ({"train": [{**GOOD, "output": [[]]}], "test": [GOOD]}, r"output is \[\[\]\]"),
        ({"train": [{**GOOD, "input": [[1, 2], [3]]}], "test": [GOOD]}, r"input\[1\] has 1 cells"),
        ({"train": [{**GOOD, "input": [[1, 10]]}], "test": [GOOD]}, r"input\[0\]\[1\] is 10"),
        ({"train": [{**GOOD, "input": [[1, True]]}], "test": [GOOD]}, r"input\[0\]\[1\] is true"),
        ({"train": [GOOD], "test": [{**GOOD, "input": [[0] * 31]}]}, r"test\[0\].input is 1×31"),
    ],
)
def test_a_malformed_file_is_refused_by_name_and_place(broken, place, tmp_path):
    file = tmp_path / "broken.json"
    file.write_text(broken if isinstance(broken, str) else json.dumps(broken))

    with pytest.raises(ValueError, match=place) as refused:
        read_folder(tmp_path)

    assert "broken.json" in str(refused.value)


def test_a_folder_without_tasks_is_refused(tmp_path):
    with pytest.raises(ValueError, match="holds no task file"):
        read_folder(tmp_path)
    with pytest.raises(ValueError, match="is no folder"):
        read_folder(tmp_path / "none")


def file_tasks(count: int = 40) -> list[FileTask]:
    """Tasks whose every grid tells the task and the pair that it is of."""
    tasks = []
    for number in range(count):
        pairs = [Pair(*(np.full((1, 2 + k), 1 + number % 9) for _ in range(2))) for k in range(4)]
        tasks.append(FileTask(f"task{number}", tuple(pairs[:3]), tuple(pairs[3:])))
    return tasks


def test_file_tasks_are_held_out_whole_and_left_as_they_are():
    source = FileTasks(file_tasks(), canvas=6, demonstrations=2)

    held_out = source.validation(100)
    trained = source.training(300, 2, block=rng(0), query=rng(1))

    assert {task.name for task in held_out} == {
        task.name for task in file_tasks() if is_held_out(task.name)
    }
    assert not {task.name for task in held_out} & {task.name for task in trained}
    original = {task.name: task for task in file_tasks()}
    for task in held_out:
        assert task.queries[0] is not None
        assert np.array_equal(task.queries[0].output, original[task.name].test[0].output)


def test_a_training_task_never_asks_for_a_pair_that_it_shows():
    source = FileTasks(file_tasks(), canvas=6, demonstrations=2)

    for task in source.training(200, 4, block=rng(0), query=rng(1)):
        # A pair's length is its number, whatever way the task was turned.
        shown = {pair.input.size for pair in task.demonstrations}
        assert not shown & {pair.input.size for pair in task.queries}


def test_too_few_tasks_that_fit_are_refused_with_their_numbers():
    with pytest.raises(ValueError, match="of 40 tasks 0 fit a canvas of 1×1"):
        FileTasks(file_tasks(), canvas=1, demonstrations=2)


def test_the_symbols_hold_the_demonstrations_alone():
    tasks = DrawnTasks(canvas=4, demonstrations=2, seed=0).training(
        3, 1, block=rng(4), query=rng(5)
    )
    others = DrawnTasks(canvas=4, demonstrations=2, seed=0).training(
        3, 1, block=rng(4), query=rng(6)
    )

    batch, other = (encode(some, canvas=4, device=CPU) for some in (tasks, others))

    assert torch.equal(batch.symbols_BT, other.symbols_BT)
    assert not torch.equal(batch.target_XSS, other.target_XSS)
    assert batch.symbols_BT.shape == (3, 2 * (2 * 16 + 1))
    assert batch.symbols_BT.max() == len(SYMBOLS) - 1
    # Inputs and outputs alternate, and no symbol of one is a symbol of the other.
    first = batch.symbols_BT[:, :32].view(3, 16, 2)
    assert (first[..., 0] <= PAD).all() and (first[..., 1] > PAD).all()


def test_the_canvas_gives_grids_back():
    tasks = DrawnTasks(canvas=5, demonstrations=1, seed=0).validation(5)

    batch = encode(tasks, canvas=5, device=CPU)

    for number, task in enumerate(tasks):
        rows, columns = batch.size_X2[number].tolist()
        assert (rows, columns) == task.queries[0].output.shape
        assert batch.target_XSS[number, :rows, :columns].tolist() == task.queries[0].output.tolist()
        assert (batch.target_XSS[number] != PAD).sum() == rows * columns
