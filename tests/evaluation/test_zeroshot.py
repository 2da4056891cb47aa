from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from openeupe import encoders
from openeupe.encoders import Encoder, create
from openeupe.encoders.text import TEXT_SPACES, TextSpace, TextTower, text_space
from openeupe.errors import InputError
from openeupe.evaluation import zeroshot
from openeupe.evaluation.benchmark import EvaluatedEncoder, NotApplicable
from openeupe.evaluation.features import Features
from openeupe.evaluation.zeroshot import ZeroShot, ZeroShotRidge, class_vectors, is_expert

_COLOURS = {"red": (220, 30, 40), "green": (30, 210, 50), "deep_blue": (20, 40, 220)}


class Painter(TextTower):
    """Texts -> what raw pixels see of a plain image of the colour that they name."""

    def __init__(self) -> None:
        super().__init__("painter")
        self.seen: list[str] = []

    def embed(self, texts: list[str]) -> Tensor:
        self.seen += texts
        colours = [
            next(c for name, c in _COLOURS.items() if name.replace("_", " ") in text)
            for text in texts
        ]
        plain = (torch.tensor(colours) / 127.5 - 1)[:, :, None].expand(-1, -1, 256)
        return 3 * plain.flatten(1)


@pytest.fixture
def painter(monkeypatch: pytest.MonkeyPatch) -> Painter:
    """Raw pixels as an expert that shares a space with text."""
    tower = Painter()
    space = TextSpace("raw_pixels", 768, tower)
    monkeypatch.setitem(TEXT_SPACES, "raw_pixels", lambda: space)
    text_space.cache_clear()
    monkeypatch.setattr(zeroshot, "_VECTORS", {})
    return tower


@pytest.fixture
def data(tmp_path: Path) -> dict[str, Any]:
    random = np.random.default_rng(0)
    for split, count in (("train", 8), ("test", 4)):
        for name, colour in _COLOURS.items():
            folder = tmp_path / "set" / split / name
            folder.mkdir(parents=True)
            for i in range(count):
                noise = random.integers(-60, 60, (40, 50, 3))
                pixels = (np.array(colour) + noise).clip(0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(folder / f"{i}.png")
    return {"layout": "folder", "path": str(tmp_path / "set")}


def benchmark(kind: type[ZeroShot] | type[ZeroShotRidge], data: dict[str, Any], **more: Any) -> Any:
    return kind(data=data, expert="raw_pixels", crop=32, short=36, **more)  # type: ignore[arg-type]


def evaluated(encoder: Encoder, **chains: Any) -> EvaluatedEncoder:
    return EvaluatedEncoder(encoder, Features(encoder), chains)


def test_only_the_published_weights_are_the_expert() -> None:
    expert = "efficientnet_lite0"
    assert is_expert(expert, create(expert, pretrained=True))
    assert not is_expert(expert, create(expert))
    assert not is_expert(expert, create("raw_pixels"))
    trained = create(expert, pretrained=True)
    with torch.no_grad():
        trained.trunk.conv_head.weight.add_(0.01)  # type: ignore[union-attr, operator]
    assert not is_expert(expert, trained)


def test_an_untrained_network_of_the_experts_shape_has_no_zero_shot(
    data: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also of an expert whose space asks for no more than a class token."""
    encoder = create("test_resnet").eval()
    space = TextSpace("test_resnet", encoder.cls_dim, Painter())
    monkeypatch.setitem(TEXT_SPACES, "test_resnet", lambda: space)
    monkeypatch.setattr(encoders, "load", lambda name: create(name).eval())
    text_space.cache_clear()
    found = ZeroShot(data=data, expert="test_resnet", crop=32, short=36)  # type: ignore[arg-type]
    with pytest.raises(NotApplicable, match="neither test_resnet nor distilled from it"):
        found.run(found.open(Path()), evaluated(encoder))


def test_a_class_vector_is_the_mean_of_normalized_prompts() -> None:
    class Tower(TextTower):
        def embed(self, texts: list[str]) -> Tensor:
            return torch.tensor([[float(len(t)), float(t.count("a"))] for t in texts])

    prompts = [["a", "aab"], ["bbbb", "ba"]]
    vectors = class_vectors(Tower("t"), prompts)
    ends = [[(1.0, 1.0), (3.0, 2.0)], [(4.0, 0.0), (2.0, 1.0)]]
    for vector, (one, two) in zip(vectors, ends, strict=True):
        mean = np.array(one) / np.hypot(*one) + np.array(two) / np.hypot(*two)
        np.testing.assert_allclose(vector.numpy(), mean / np.linalg.norm(mean), rtol=1e-6)


def test_the_expert_itself_is_asked_directly(painter: Painter, data: dict[str, Any]) -> None:
    settings = benchmark(ZeroShot, data, templates=("a {} thing", "{}"))
    outcome = settings.run(settings.open(Path()), evaluated(create("raw_pixels")))[""]
    assert outcome.headline == "top1"
    assert outcome.measures["top1"].value == outcome.measures["top5"].value == 100
    assert outcome.measures["top1"].samples[0] == "deep_blue/0.png"
    assert outcome.baselines == {"chance": pytest.approx(100 / 3)}
    assert painter.seen[:2] == ["a deep blue thing", "deep blue"]
    assert outcome.details["way"] == "direct"
    assert outcome.details["templates"] == ("a {} thing", "{}")


def test_the_identity_covers_an_edited_file_of_names(
    painter: Painter, data: dict[str, Any], tmp_path: Path
) -> None:
    names = tmp_path / "names.yaml"
    settings = benchmark(ZeroShot, {**data, "names": str(names)})
    found = []
    for first, second in (("red", "green"), ("red", "green"), ("green", "red")):
        names.write_text(f"{{red: {first}, green: {second}, deep_blue: deep blue}}")
        found.append(settings.identities(settings.open(Path())))
    assert found[0] == found[1]
    assert found[2] != found[0]
    assert found[2][:2] == found[0][:2]  # the images are the same


def test_the_experts_vectors_are_of_the_asked_precision(
    painter: Painter, data: dict[str, Any]
) -> None:
    settings = benchmark(ZeroShotRidge, data)
    for precision in ("fp32", "bf16"):
        encoder = create("raw_pixels")
        features = Features(encoder, precision=precision)  # type: ignore[arg-type]
        settings.run(settings.open(Path()), EvaluatedEncoder(encoder, features))
    assert {key[-1] for key in zeroshot._VECTORS} == {"fp32", "bf16"}


def test_a_student_goes_through_its_chain(painter: Painter, data: dict[str, Any]) -> None:
    encoder = create("test_vit").eval()
    turned = torch.zeros(768)
    turned[:256] = 1  # says "red" of every image

    def chain(cls: Tensor) -> Tensor:
        assert cls.shape[1] == encoder.cls_dim
        return turned.expand(len(cls), -1)

    settings = benchmark(ZeroShot, data)
    outcome = settings.run(settings.open(Path()), evaluated(encoder, raw_pixels=chain))[""]
    assert outcome.measures["top1"].value == pytest.approx(100 / 3)
    assert outcome.measures["top1"].sums[0, 8:, 0].tolist() == [1] * 4  # the red ones
    assert outcome.details["way"] == "chain"


def test_without_a_way_the_reason_is_given(painter: Painter, data: dict[str, Any]) -> None:
    settings = benchmark(ZeroShot, data)
    opened = settings.open(Path())
    with pytest.raises(NotApplicable, match="neither raw_pixels nor distilled from it"):
        settings.run(opened, evaluated(create("test_vit")))
    with pytest.raises(NotApplicable, match="its heads lead to hed, not to raw_pixels"):
        settings.run(opened, evaluated(create("raw_pixels"), hed=lambda cls: cls))
    with pytest.raises(NotApplicable, match="ends in 64 dimensions, the text space asks for 768"):
        settings.run(opened, evaluated(create("test_vit"), raw_pixels=lambda cls: cls[:, :64]))


def test_a_ridge_map_leads_any_encoder_there(painter: Painter, data: dict[str, Any]) -> None:
    class Mixed(type(create("raw_pixels"))):  # type: ignore[misc]
        def tokens(self, pixels: Tensor) -> Any:
            tokens = super().tokens(pixels)
            g = torch.Generator().manual_seed(0)
            return tokens._replace(cls=tokens.cls @ torch.randn(768, 50, generator=g))

    settings = benchmark(ZeroShotRidge, data)
    opened = settings.open(Path())
    outcome = settings.run(opened, evaluated(Mixed()))[""]
    assert outcome.measures["top1"].value == 100
    assert outcome.details["fit_images"] == 24
    with pytest.raises(NotApplicable):  # the plain benchmark does not pass by the ridge map
        benchmark(ZeroShot, data).run(opened, evaluated(create("test_vit")))


def test_ridge_fits_the_experts_vectors_on_train_alone(
    painter: Painter, data: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = []
    load = encoders.load
    monkeypatch.setattr(encoders, "load", lambda name: (loaded.append(name), load(name))[1])
    settings = benchmark(ZeroShotRidge, data)
    opened = settings.open(Path())
    for _ in range(2):
        outcome = settings.run(opened, evaluated(create("raw_pixels")))[""]
    assert loaded == ["raw_pixels"]  # once a process, not once an encoder
    (targets,) = zeroshot._VECTORS.values()
    assert targets.shape == (24, 768)
    torch.testing.assert_close(targets.norm(dim=1), torch.ones(24))
    assert outcome.details["shrinkage"] in (1e-3, 1e-2, 1e-1, 1.0, 10.0)
    few = benchmark(ZeroShotRidge, data, fit_images=10)
    assert few.run(opened, evaluated(create("raw_pixels")))[""].details["fit_images"] == 10


def test_predictions_of_the_ridge_map_are_the_closed_form() -> None:
    from openeupe.evaluation.ridge import RidgeReadout

    g = torch.Generator().manual_seed(0)
    x, y = torch.randn(60, 5, generator=g), torch.randn(60, 3, generator=g)
    readout = RidgeReadout(x, torch.arange(60))
    centred = (x - x.mean(0)).double()
    covariance = centred.T @ centred
    penalty = readout.shrinkage(y) * covariance.trace() / 5 * torch.eye(5)
    weights = torch.linalg.solve(covariance + penalty, centred.T @ (y - y.mean(0)).double())
    expected = centred @ weights + y.mean(0)
    torch.testing.assert_close(readout.predict(y, x).double(), expected, atol=1e-5, rtol=1e-5)


def test_mistakes_are_one_line(painter: Painter, data: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=r"template 'a photo' has no \{\} for the class"):
        benchmark(ZeroShot, data, templates=("a photo",)).open(Path())
    with pytest.raises(InputError, match="hed shares no space with text: use one of efficientnet"):
        ZeroShot(data=data, expert="hed").open(Path())  # type: ignore[arg-type]


def test_openai_prompts(painter: Painter, data: dict[str, Any]) -> None:
    pytest.importorskip("open_clip")
    opened = benchmark(ZeroShot, data, templates="openai-80").open(Path())
    assert [len(texts) for texts in opened.prompts] == [80, 80, 80]
    assert "a bad photo of a deep blue." in opened.prompts[0]
    imagenet = Path(data["path"]) / "imagenet"
    for part in ("train", "val"):
        (imagenet / part / "n01440764").mkdir(parents=True)
        color = (9 * len(part), 0, 0)  # another image in each
        Image.new("RGB", (8, 8), color).save(imagenet / part / "n01440764" / "1.png")
    settings = {"layout": "imagenet", "path": str(imagenet)}
    with pytest.raises(InputError, match="1 class folders, ImageNet-1k has 1000"):
        benchmark(ZeroShot, settings, templates="openai-80").open(Path())
    opened = benchmark(ZeroShot, settings).open(Path())
    assert opened.prompts == [["tench, Tinca tinca"]]
    assert F.cosine_similarity(*painter.encode(["red", "green"])[:, None])[0] < 0
