import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from image_restoration_kit import enlarge, quantise, read_picture
from image_restoration_kit.commands import restoration_app, super_resolution_app
from PIL import Image
from typer.testing import CliRunner


@pytest.fixture
def run(toys: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Runs a command line with a toy network; a file of weights tells its scale."""
    monkeypatch.chdir(tmp_path)
    Path("weights.pth").write_text("2")
    Path("bad.pth").write_text("no number")

    def load(path: Path) -> Any:
        if not path.exists():
            raise FileNotFoundError(f"no checkpoint file at {path}")
        network = toys(scale=int(path.read_text())).eval()
        network.config = "a toy"
        return network

    app = super_resolution_app("toy", load)
    runner = CliRunner(env={"COLUMNS": "200", "NO_COLOR": "1"})
    return lambda line: runner.invoke(app, line.split())


def picture(path: str, height: int = 9, width: int = 14, mode: str = "RGB") -> Path:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(0)
    values = generator.integers(0, 256, (height, width, len(mode)), dtype=np.uint8)
    Image.fromarray(values.squeeze()).save(path)
    return Path(path)


def test_a_folder_goes_through_and_a_bad_file_is_reported(run: Any, toy: Any) -> None:
    for name, mode in (("a.png", "RGB"), ("b.png", "RGBA"), ("c.png", "L"), ("d.jpg", "RGB")):
        picture(f"in/{name}", mode=mode)
    Path("in/e.png").write_bytes(Path("in/a.png").read_bytes()[:80])
    result = run("upscale in --checkpoint weights.pth -o out --suffix _x2 --device cpu")
    assert result.exit_code == 2
    assert "error: in/e.png is damaged or cut off" in result.stderr
    assert "4 of 5 written to out" in result.stdout
    names = ["a_x2.png", "b_x2.png", "c_x2.png", "d_x2.jpg"]
    assert sorted(p.name for p in Path("out").iterdir()) == names
    modes = [Image.open(f"out/{name}").mode for name in names]
    assert modes == ["RGB", "RGBA", "L", "RGB"]
    expected = quantise(enlarge(toy, read_picture("in/a.png").color[None])[0])
    found = torch.from_numpy(np.asarray(Image.open("out/a_x2.png")).copy()).permute(2, 0, 1)
    assert found.equal(expected)


def test_one_file_to_one_file_in_tiles(run: Any) -> None:
    picture("a.png", 33, 50)
    assert run("upscale a.png -m weights.pth -o whole.png --tile 0 --device cpu").exit_code == 0
    result = run("upscale a.png -m weights.pth -o tiles.png --tile 16 --halo 4 --device cpu")
    assert "tiles of 16 with a halo of 4, as the whole image" in " ".join(result.stdout.split())
    assert Path("tiles.png").read_bytes() == Path("whole.png").read_bytes()
    result = run("upscale a.png -m weights.pth -o none.png --tile 16 --halo 0 --device cpu")
    said = " ".join(result.stdout.split())  # lines wrap
    assert "at a seam they differ from the whole image by" in said


def test_ensemble_and_bf16_change_the_result_a_little(run: Any) -> None:
    picture("a.png")
    for name, option in (("a", ""), ("b", "--ensemble"), ("c", "--bf16")):
        line = f"upscale a.png -m weights.pth -o {name}_out.png --device cpu {option}"
        assert run(line).exit_code == 0
    plain, ensemble, half = (np.asarray(Image.open(f"{n}_out.png")).astype(int) for n in "abc")
    assert (plain != ensemble).any()
    assert 0 < abs(plain - half).max() < 16


def test_formats(run: Any) -> None:
    picture("a.png")
    assert run("upscale a.png -m weights.pth -o out --format webp --device cpu").exit_code == 0
    assert Image.open("out/a.webp").size == (28, 18)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("upscale a.png -m none.pth -o out", "no checkpoint file at none.pth"),
        ("upscale a.png -m bad.pth -o out", "invalid literal"),
        ("upscale a.png -m weights.pth -o out --scale 4", "enlarges 2 times, not 4"),
        ("upscale none.png -m weights.pth -o out", "no file or folder at none.png"),
        ("upscale a.png -m weights.pth -o out --tile 18", "tile=18: must be a multiple"),
        ("upscale a.png -m weights.pth -o out --tile big", "must be auto, 0 or a number"),
        ("upscale a.png a.png -m weights.pth -o out", "two images would be written to"),
        ("upscale a.png b.png -m weights.pth -o out.png", "2 images do not go into one file"),
        ("upscale a.png -m weights.pth -o out --edge wrap", "edge='wrap'"),
        ("upscale rgba.png -m weights.pth -o out.jpg", ".jpg holds no transparency"),
        ("evaluate --hr none -m weights.pth", "no folder of images at none"),
        ("evaluate --hr hr --lr hr -m weights.pth", "is not 2 times"),
        ("prepare hr -o out --size 15 --scale 4", "size is a multiple of scale"),
        ("prepare none -o out", "no file or folder at none"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(run: Any, line: str, message: str) -> None:
    picture("a.png")
    picture("b.png")
    picture("rgba.png", mode="RGBA")
    picture("hr/a.png", 32, 32)
    result = run(f"{line} {'--device cpu' if 'prepare' not in line else ''}")
    assert result.exit_code == 2
    errors = [text for text in result.stderr.splitlines() if text.startswith("error:")]
    assert len(errors) == 1
    assert message in errors[0]
    assert "Traceback" not in result.stderr


def test_evaluation_tells_the_network_beside_bicubic(run: Any) -> None:
    picture("hr/a.png", 32, 36)
    picture("hr/b.png", 31, 33)
    result = run("evaluate --hr hr -m weights.pth --json --device cpu")
    found = json.loads(result.stdout)
    assert set(found["images"]) == {"a", "b"}
    values = [row["psnr"] for row in found["images"].values()]
    assert found["mean"]["psnr"] == pytest.approx(sum(values) / 2)
    assert found["mean"]["bicubic_psnr"] > found["mean"]["psnr"]  # the toy is not trained
    table = run("evaluate --hr hr -m weights.pth --device cpu").stdout
    assert "bicubic PSNR / dB" in table
    assert "mean" in table


def test_restoration_has_its_own_verb_and_baseline(toys: Any, run: Any) -> None:
    app = restoration_app("toy", lambda path: toys(scale=1).eval(), verb="clean", on_luma=False)
    invoke = CliRunner(env={"COLUMNS": "200"}).invoke
    picture("hr/a.png", 32, 36)
    picture("lr/a.png", 32, 36)
    asked = "evaluate --hr hr --lr lr -m weights.pth --device cpu"
    assert "input PSNR / dB" in invoke(app, asked.split()).stdout
    mean = json.loads(invoke(app, [*asked.split(), "--json"]).stdout)["mean"]
    assert mean["input_psnr"] == float("inf")
    done = invoke(
        app, ["clean", "hr/a.png", "-m", "weights.pth", "-o", "out.png", "--device", "cpu"]
    )
    assert done.exit_code == 0
    assert Image.open("out.png").size == (36, 32)


def test_preparation_makes_pairs_and_databases(run: Any) -> None:
    picture("hr/a.png", 48, 40)
    result = run("prepare hr -o data --scale 4 --size 32 --step 16 --lmdb")
    assert result.exit_code == 0
    assert "4 pairs in data" in result.stdout
    assert len(list(Path("data/HR").iterdir())) == len(list(Path("data/LRx4").iterdir())) == 4
    assert Path("data/HR.lmdb/meta_info.txt").exists()
    evaluated = run("prepare hr -o whole --scale 2 --size 0")
    assert evaluated.exit_code == 0
    assert Image.open("whole/LRx2/a.png").size == (20, 24)


def test_show_tells_what_a_file_is(run: Any) -> None:
    result = run("show weights.pth")
    assert "Toy x2, 912 parameters, sides a multiple of 4" in result.stdout
