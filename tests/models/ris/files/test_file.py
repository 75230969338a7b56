"""Files of scenes: what is written comes back, what anybody writes opens, what is wrong is told."""

from __future__ import annotations

import re
import struct
import subprocess
import sys
import zipfile
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from models.ris.files.file import SceneFile
from models.ris.files.writer import drawn_parts, write_scenes
from models.ris.scene.scenes import SIZES, Installation, Scenes, draw_installation, draw_scenes
from models.ris.scene.streams import stream_generator
from tests.support.program import ROOT

UNIT = SIZES["unit"]


def drawn(count: int = 600, *, is_shared: bool = True, size: str = "unit") -> list[Scenes]:
    return list(drawn_parts(SIZES[size], count, stream="test", seed=0, is_shared=is_shared))


def written(path: Path, parts: list[Scenes], **how) -> SceneFile:
    write_scenes(path, parts, sum(map(len, parts)), wavelength_m=0.1, **how)
    return SceneFile.open(path)


def plain(count: int = 8, *, seed: int = 0) -> dict[str, np.ndarray]:
    """Arrays of a file as somebody without this project would have them."""
    scenes = draw_scenes(
        UNIT,
        count,
        torch.Generator().manual_seed(seed),
        installation=draw_installation(UNIT, torch.Generator().manual_seed(1)),
    )
    return {
        "snapshots": scenes.snapshots_BLMT.numpy(),
        "codes": scenes.installation.codes_BLN[0].numpy(),
        "channel": scenes.installation.channel_BMN[0].numpy(),
        "wavelength_m": np.array(0.1),
        "positions": scenes.positions_BK3.numpy().astype(float),
        "powers": scenes.powers_BK.numpy(),
        "snr_db": scenes.snr_db_B.numpy(),
    }


def saved(path: Path, **changes) -> Path:
    """A file of numpy.savez; None leaves an array out."""
    arrays = {name: a for name, a in {**plain(), **changes}.items() if a is not None}
    np.savez(path, **arrays)
    return path


@pytest.mark.parametrize("is_shared", [True, False])
def test_scenes_come_back_bit_for_bit(tmp_path: Path, is_shared: bool):
    parts = drawn(is_shared=is_shared)

    file = written(tmp_path / "s.npz", parts)

    assert (len(file), file.has_labels, file.has_one_wall) == (600, True, is_shared)
    for part, rows in zip(parts, (slice(0, 500), range(500, 600)), strict=True):
        found = file.scenes(rows, UNIT)
        for name in ("channel_BMN", "codes_BLN"):
            assert torch.equal(getattr(found.installation, name), getattr(part.installation, name))
        for field in fields(Scenes)[1:]:
            one, other = getattr(found, field.name), getattr(part, field.name)
            assert torch.equal(one.nan_to_num(), other.nan_to_num()), field.name
    # Single ones, out of order, are those of the whole.
    some = file.scenes(torch.tensor([599, 3]), UNIT)
    assert torch.equal(some.sample_BLMM[1], parts[0].sample_BLMM[3])
    assert torch.equal(some.snapshots_BLMT[0], parts[1].snapshots_BLMT[99])


@pytest.mark.parametrize("is_shared", [True, False])
def test_half_precision_rounds_and_does_nothing_else(tmp_path: Path, is_shared: bool):
    # Far from fp16's range as they are: a factor of 1e-8 would underflow, one of 1e8 overflow.
    parts = drawn(300, is_shared=is_shared)
    factor_B111 = 10 ** torch.linspace(-8, 8, 300)[:, None, None, None]
    loud = [replace(parts[0], snapshots_BLMT=parts[0].snapshots_BLMT * factor_B111)]

    whole = written(tmp_path / "whole.npz", parts)
    file = written(tmp_path / "half.npz", loud, half=True)

    assert (tmp_path / "half.npz").stat().st_size < 0.62 * (tmp_path / "whole.npz").stat().st_size
    found, exact = (f.scenes(slice(None), UNIT) for f in (file, whole))
    y_BX = exact.snapshots_BLMT.flatten(1)
    error_BX = (found.snapshots_BLMT / factor_B111).flatten(1) - y_BX
    # 2⁻¹¹ of each part; of parts below 6e-5 of the mean, 2⁻²⁵ of the mean; float32 in the scale.
    bound_BX = 2**-11 * y_BX.abs() + (2**-24 + 1e-6) * y_BX.abs().square().mean(1, True).sqrt()
    assert (error_BX.abs() <= 1.01 * bound_BX).all()
    # S_l = y yᴴ: twice the relative error, and its square.
    difference = (found.sample_BLMM - exact.sample_BLMM).flatten(1).norm(dim=1)
    assert (difference < 2.1 * 2**-11 * exact.sample_BLMM.flatten(1).norm(dim=1)).all()
    assert torch.equal(found.positions_BK3.nan_to_num(), exact.positions_BK3.nan_to_num())
    torch.testing.assert_close(found.noise_B, exact.noise_B, rtol=4 * 2**-11, atol=0)


def test_a_file_is_mapped_and_not_read(tmp_path: Path):
    file = written(tmp_path / "s.npz", drawn())

    base = file._arrays["snapshots"]

    while not isinstance(base, np.memmap):
        base = base.base
    assert base.mode == "r"
    with pytest.raises(ValueError, match="read-only"):
        file._arrays["snapshots"][0] = 0


def test_the_example_of_the_documents_writes_a_file_that_opens(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    section = (ROOT / "docs" / "ris-covariance.md").read_text().split("## Scenes from outside\n")[1]
    example = re.findall(r"```python\n(.*?)```", section, re.DOTALL)[0]
    given = plain()
    names = {"y": "snapshots", "c": "codes", "h": "channel"}
    known = {**given, **{short: given[name] for short, name in names.items()}, "np": np}
    known["h"] = known["h"] * np.float32(1e-5)
    monkeypatch.chdir(tmp_path)

    exec(example, known)

    file = SceneFile.open("scenes.npz")
    assert len(file) == 8 and file.has_labels
    file.check(UNIT)


def test_the_same_scenes_are_the_same_bytes(tmp_path: Path):
    paths = [tmp_path / "one.npz", tmp_path / "other.npz"]

    for path in paths:
        written(path, drawn(20), half=True)

    assert paths[0].read_bytes() == paths[1].read_bytes()


def test_a_file_of_plain_numpy_opens_and_says_the_same(tmp_path: Path):
    arrays = plain()
    file = SceneFile.open(saved(tmp_path / "s.npz", notes=np.array(["by hand", None], object)))
    own = written(tmp_path / "own.npz", [draw_plain()])

    found, expected = (f.scenes(range(8), UNIT) for f in (file, own))

    assert torch.equal(found.sample_BLMM, expected.sample_BLMM)
    torch.testing.assert_close(found.noise_B, expected.noise_B)
    torch.testing.assert_close(found.steering_BNK, expected.steering_BNK)
    assert file.layout.fits(UNIT) and not file.layout.fits(SIZES["tiny"])
    assert arrays["snapshots"].shape == (8, 8, 4, 1)


def draw_plain() -> Scenes:
    wall = draw_installation(UNIT, torch.Generator().manual_seed(1))
    return draw_scenes(UNIT, 8, torch.Generator().manual_seed(0), installation=wall)


def test_the_scale_of_snapshots_and_powers_is_free(tmp_path: Path):
    given = plain()
    loud = saved(
        tmp_path / "loud.npz", snapshots=given["snapshots"] * 2**20, powers=given["powers"] * 50
    )
    one, other = (SceneFile.open(p) for p in (saved(tmp_path / "s.npz"), loud))

    found, expected = (file.scenes(range(8), UNIT) for file in (other, one))

    # A power of two changes no bit; a sum of 50 is divided away within rounding.
    assert torch.equal(found.sample_BLMM, expected.sample_BLMM)
    torch.testing.assert_close(found.powers_BK.sum(1), torch.ones(8))
    torch.testing.assert_close(found.noise_B, expected.noise_B)
    # Their mean power is that of the label and its noise, whatever was in the file.
    torch.testing.assert_close(found.snapshots_BLMT, expected.snapshots_BLMT)
    seen = found.installation.sensing_BLMN @ found.factor_BNK.unsqueeze(1)
    signal_B = seen.abs().square().sum((2, 3)).mean(1) / UNIT.antennas
    sigma2_B = signal_B * 10 ** (-found.snr_db_B / 10)
    power_B = found.snapshots_BLMT.abs().square().mean((1, 2, 3))
    torch.testing.assert_close(power_B, signal_B + sigma2_B)


def test_measured_scenes_without_labels_have_no_truth_but_their_number_of_sources(tmp_path: Path):
    unknown = {"positions": None, "powers": None, "snr_db": None}
    bare = SceneFile.open(saved(tmp_path / "bare.npz", **unknown))
    counted = SceneFile.open(saved(tmp_path / "c.npz", **unknown, count=np.array([1, 2] * 4)))

    found, known = (file.scenes([1, 2], UNIT) for file in (bare, counted))

    assert not bare.has_labels and not counted.has_labels
    assert found.source_mask_BK.tolist() == [[True, True], [True, True]]
    assert known.source_mask_BK.tolist() == [[True, True], [True, False]]
    assert torch.isfinite(found.sample_BLMM).all()
    for name in ("positions_BK3", "powers_BK", "noise_B", "snr_db_B", "steering_BNK"):
        assert torch.isnan(getattr(found, name)).all()


def test_codes_may_differ_from_scene_to_scene_under_one_channel(tmp_path: Path):
    given = plain()
    codes = np.stack([np.roll(given["codes"], shift, 0) for shift in range(8)])
    file = SceneFile.open(saved(tmp_path / "s.npz", codes=codes))

    found: Installation = file.scenes([5, 2], UNIT).installation

    assert not file.has_one_wall
    assert np.array_equal(found.codes_BLN.numpy(), codes[[5, 2]])
    assert np.array_equal(found.channel_BMN.numpy(), np.stack([given["channel"]] * 2))


def test_columns_first_and_another_byte_order_are_read(tmp_path: Path):
    snapshots = np.asfortranarray(plain()["snapshots"].astype(">c8"))

    file = SceneFile.open(saved(tmp_path / "s.npz", snapshots=snapshots))

    expected = SceneFile.open(saved(tmp_path / "plain.npz")).scenes(range(8), UNIT)
    assert torch.equal(file.scenes(range(8), UNIT).sample_BLMM, expected.sample_BLMM)


def changed(name: str, value, *at: int) -> dict[str, np.ndarray]:
    array = plain()[name].copy()
    array[at] = value
    return {name: array}


GIVEN = plain()
PAIRS = np.zeros((8, 8, 4, 1, 2), np.float16)
WRONG = {
    "lacks snapshots": ({"snapshots": None}, "it lacks snapshots of"),
    "lacks a wavelength": ({"wavelength_m": None}, "it lacks wavelength_m of"),
    "some labels": ({"powers": None}, "holds positions, snr_db and lacks powers"),
    "complex128": (
        {"snapshots": GIVEN["snapshots"].astype(complex)},
        r"complex128 of shape .* \.astype\('complex64'\)",
    ),
    "real codes": ({"codes": np.ones((8, 16), np.float32)}, "'codes' in .* is float32"),
    "pairs of float32": ({"snapshots": PAIRS.astype(np.float32)}, "'snapshots' .* is float32"),
    "texts": ({"snr_db": np.array(["1"] * 8)}, "'snr_db' in .* is <U1"),
    "objects": ({"powers": np.array([[1, None]] * 8, object)}, "'powers' .* Python objects"),
    "three axes": ({"snapshots": GIVEN["snapshots"][..., 0]}, r"write \(S, L, M, T\)"),
    "no scene": ({"snapshots": GIVEN["snapshots"][:0]}, "holds no scene"),
    "no antenna": ({"snapshots": GIVEN["snapshots"][:, :, :0]}, "is wanted"),
    "other L": ({"codes": GIVEN["codes"][:7]}, r"'codes' .* \(7, 16\), and .* \(8, 16\) or"),
    "other M": ({"channel": GIVEN["channel"][:3]}, r"'channel' .* \(3, 16\)"),
    "other N": ({"channel": GIVEN["channel"][:, :9]}, r"'channel' .* \(4, 9\)"),
    "other K": ({"powers": GIVEN["powers"][:, :1]}, r"'powers' .* \(8, 2\) is wanted"),
    "other S": ({"snr_db": GIVEN["snr_db"][:7]}, r"'snr_db' .* \(8,\) is wanted"),
    "no square": (
        {"codes": GIVEN["codes"][:, :15], "channel": GIVEN["channel"][:, :15]},
        "of 15 elements; a square surface has",
    ),
    "no metres": ({"wavelength_m": np.array(-0.1)}, "'wavelength_m' .* is -0.1; write metres"),
    "two wavelengths": ({"wavelength_m": np.ones(2)}, r"\(\) or \(1,\) is wanted"),
    "not finite": (changed("snapshots", np.nan, 3, 1), "scene 3 of .*: 'snapshots' are not finite"),
    "silent": (changed("snapshots", 0, 4), "scene 4 of .*: the largest of 'snapshots' is not"),
    "overflows": (changed("snapshots", 1e30, 5, 0), "scene 5 of .* 1e-15 to 1e"),
    "no phase": (changed("codes", 0.5, 2, 3), "'codes' are not of unit modulus; write exp"),
    "path loss": ({"channel": GIVEN["channel"] / 1e4}, "'channel' is not of unit mean power"),
    "channel not finite": (changed("channel", np.inf, 0, 0), "'channel' is not of unit mean power"),
    "degrees": (changed("positions", 40.0, 1, 0, 0), "scene 1 of .* within ±π/2 rad"),
    "behind": (changed("positions", -1.0, 2, 0, 2), "scene 2 of .* a range above 0 m"),
    "half absent": (changed("positions", np.nan, 2, 0, 1), "absent sources are NaN in all three"),
    "none present": (changed("positions", np.nan, 6), "scene 6 of .* begin with an absent source"),
    "no power": (changed("powers", 0, 1, 0), "scene 1 of .* present sources are not above 0"),
    "no decibels": (changed("snr_db", np.nan, 7), "scene 7 of .*: 'snr_db' is not within ±100"),
    "no source": (
        {
            **dict.fromkeys(("positions", "powers", "snr_db")),
            "count": np.zeros(8, int),
        },
        "'count' in .* goes down to 0",
    ),
}


@pytest.mark.parametrize(("changes", "says"), WRONG.values(), ids=WRONG)
def test_a_wrong_file_is_refused_by_what_is_wrong(tmp_path: Path, changes, says: str):
    path = saved(tmp_path / "wrong.npz", **changes)

    with pytest.raises(ValueError, match=says) as refused:
        SceneFile.open(path)

    assert "wrong.npz" in str(refused.value)


def test_what_is_no_file_of_numpy_is_told_apart(tmp_path: Path):
    pressed, text, other = (tmp_path / name for name in ("pressed.npz", "text.npz", "zip.npz"))
    np.savez_compressed(pressed, **plain())
    text.write_text("snapshots")
    with zipfile.ZipFile(other, "w") as archive:
        archive.writestr("snapshots.npy", "no array")

    for path, says in (
        (tmp_path / "none.npz", "No such file"),
        (tmp_path, "is a folder"),
        (pressed, "is compressed; write it with numpy.savez"),
        (text, r"is no .npz file"),
        (other, "is no array"),
    ):
        with pytest.raises(ValueError, match=says):
            SceneFile.open(path)


@pytest.mark.parametrize("share", [0.0, 0.001, 0.3, 0.9, 0.999])
def test_a_file_that_was_cut_off_is_refused(tmp_path: Path, share: float):
    whole = saved(tmp_path / "whole.npz").read_bytes()
    cut = tmp_path / "cut.npz"
    cut.write_bytes(whole[: int(share * len(whole))])

    with pytest.raises(ValueError, match="is cut off" if share else r"is no .npz file"):
        SceneFile.open(cut)


def test_a_file_that_lost_a_part_of_its_middle_is_refused(tmp_path: Path):
    whole = saved(tmp_path / "whole.npz").read_bytes()
    (tmp_path / "cut.npz").write_bytes(whole[:500] + whole[900:])

    with pytest.raises(ValueError, match=r"is damaged|is cut off|is no array"):
        SceneFile.open(tmp_path / "cut.npz")


def with_header(path: Path, header: str) -> Path:
    """A file whose snapshots have this header, damaged or made up, and some bytes."""
    text = header.encode("latin1") + b"\n"
    with zipfile.ZipFile(saved(path, snapshots=None), "a") as archive:
        head = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text
        archive.writestr("snapshots.npy", head + bytes(64))
    return path


def header(shape: str, descr: str = "'<c8'") -> str:
    return f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}}}"


@pytest.mark.parametrize(
    ("text", "says"),
    {
        "unclosed": ("{'descr': '<c8', 'shape': (8, 8", "is no array"),
        "unhashable": ("{[]: 1}", "is no array"),
        "nested": ("(" * 9000, "is no array"),
        "no type": (header("(8,)", "'<q9'"), "is no array"),
        "below 0": (header("(-8, -8, 4, 1)"), r"cannot have the shape \(-8, -8, 4, 1\)"),
        "a truth value": (header("(True, 4)"), r"cannot have the shape \(True, 4\)"),
        "65 axes": (header(f"({'1, ' * 65})"), "cannot have the shape of 65 axes"),
        "nothing, at length": (header(f"(0, {2**70})"), r"cannot have the shape \(0, 1180"),
        "much of nothing": (header(f"(0, {2**62}, {2**62})"), "cannot have the shape"),
        "records": (header("(1,)", "[('a', '<f4')]"), "write numbers"),
        "arrays in records": (header("(1,)", "('<f4', (2,))"), "is no array|write numbers"),
        "dates": (header("(1,)", "'<M8[s]'"), r"is datetime64\[s\]; write numbers"),
        "bytes of none": (header("(8,)", "'|V0'"), "write numbers"),
    }.values(),
)
def test_a_damaged_header_is_told_with_the_array_and_the_file(tmp_path: Path, text: str, says: str):
    path = with_header(tmp_path / "s.npz", text)

    with pytest.raises(ValueError, match=says) as refused:
        SceneFile.open(path)

    assert str(refused.value).startswith(f"'snapshots' in '{path}' ")


def test_values_that_opening_did_not_see_are_refused_when_they_are_used(tmp_path: Path):
    arrays = plain(200)
    arrays["snapshots"][100] = np.inf
    np.savez(tmp_path / "s.npz", **arrays)
    file = SceneFile.open(tmp_path / "s.npz")

    file.scenes(range(100), UNIT)

    with pytest.raises(ValueError, match=r"scene 100 of .*: 'snapshots' are not finite"):
        file.scenes(range(90, 110), UNIT)
    with pytest.raises(IndexError, match="scenes 0 to 199"):
        file.scenes([200], UNIT)


def test_another_size_is_told_with_the_one_that_fits(tmp_path: Path):
    file = SceneFile.open(saved(tmp_path / "s.npz"))
    far = SceneFile.open(saved(tmp_path / "far.npz", wavelength_m=np.array(0.2)))

    file.check(UNIT)
    with pytest.raises(ValueError, match=r"4×4 elements, .* the size has 6×6 .* --size unit"):
        file.check(SIZES["tiny"])
    with pytest.raises(ValueError, match=r"λ 0\.2 m.* none of unit, tiny, base, full fits"):
        far.check(UNIT)


class _CutOffError(BaseException):
    """As KeyboardInterrupt, without the danger of ending the tests."""


def test_writing_that_is_cut_off_leaves_what_was_there(tmp_path: Path):
    path = tmp_path / "s.npz"
    before = written(path, drawn(20)).fingerprint

    def parts():
        yield drawn(20)[0]
        raise _CutOffError

    with pytest.raises(_CutOffError):
        write_scenes(path, parts(), 40, wavelength_m=0.1)
    with pytest.raises(ValueError, match="20 scenes were given, and 30 announced"):
        write_scenes(path, drawn(20), 30, wavelength_m=0.1)

    assert [one.name for one in tmp_path.iterdir()] == ["s.npz"]
    assert SceneFile.open(path).fingerprint == before


def test_a_full_disk_leaves_nothing(tmp_path: Path):
    program = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (2**16, 2**16)); "
        "from models.ris.files.writer import *; from models.ris.scene.scenes import SIZES; "
        "parts = drawn_parts(SIZES['unit'], 2000, stream='test', seed=0, is_shared=True); "
        "write_scenes(sys.argv[1], parts, 2000, wavelength_m=0.1)"
    )

    ran = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "s.npz")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )

    assert "OSError" in ran.stderr and "File too large" in ran.stderr
    assert list(tmp_path.iterdir()) == []


def test_drawn_files_share_no_seed_with_trials_and_frozen_sets(monkeypatch: pytest.MonkeyPatch):
    seeds: list[int] = []

    def recorded(*args, **kwargs):
        generator = stream_generator(*args, **kwargs)
        seeds.append(generator.initial_seed() % 2**32)
        return generator

    monkeypatch.setattr("models.ris.files.writer.stream_generator", recorded)
    for stream, seed in (("train", 0), ("train", 1), ("test", 0), ("test", 1)):
        list(drawn_parts(UNIT, 5000, stream=stream, seed=seed, is_shared=False))
    trials = {
        stream_generator(0, "train", step, trial_seed=seed).initial_seed() % 2**32
        for seed in range(3)
        for step in range(1000)
    }
    frozen = {
        stream_generator(0, name).initial_seed() % 2**32
        for name in ("validation", "calibration", "ridge", "installation")
    }

    assert len(seeds) == len(set(seeds)) == 40
    assert not set(seeds) & (trials | frozen)
    for stream, seed in (("test", 4096), ("train", -1)):
        with pytest.raises(ValueError, match=re.escape(f"seed {seed} is out of range")):
            next(drawn_parts(UNIT, 1, stream=stream, seed=seed, is_shared=True))
    with pytest.raises(ValueError, match="no stream 'validation' to write"):
        next(drawn_parts(UNIT, 1, stream="validation", seed=0, is_shared=True))
