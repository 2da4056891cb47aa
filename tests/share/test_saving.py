"""Folders for other people: what is in them, what their cards say, and how they reach a hub."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import torch
from huggingface_hub import ModelCard
from PIL import Image

import openeupe
from openeupe import encoders
from openeupe.distillation.chain import load_with_chains
from openeupe.distillation.recipe import Recipe
from openeupe.distillation.run import run_recipe
from openeupe.distillation.student import load_heads
from openeupe.encoders.licences import FAIR, licence_of
from openeupe.errors import InputError
from openeupe.evaluation.benchmark import identify
from openeupe.share.push import push
from openeupe.share.saving import save
from tests.conftest import Quickstart, call
from tests.encoders.released_layout import write
from tests.share.results import write_results

IMAGES = torch.rand(1, 3, 64, 64)


def results(folder: Path, source: object, heads: dict[str, str] | None = None) -> None:
    """Results of the encoder at `source`, of another chain of heads if one is given."""
    encoder = identify(*load_with_chains(str(source)))
    changed = encoder if heads is None else encoder.model_copy(update={"heads": heads})
    write_results(folder / "evaluations", changed)


def test_a_runs_student_is_saved_with_heads_and_card(
    quickstart: Quickstart, tmp_path: Path
) -> None:
    # A copy: the run is shared, and other tests leave evaluations in it.
    folder = tmp_path / "run"
    shutil.copytree(quickstart.folder, folder, ignore=shutil.ignore_patterns("evaluations"))
    run = str(folder)
    results(folder, run)
    call("save", run, tmp_path / "mine")
    saved = openeupe.load(tmp_path / "mine")
    assert torch.equal(saved(IMAGES).cls, openeupe.load(run)(IMAGES).cls)
    assert set(load_heads(tmp_path / "mine")) == set(load_heads(run)) == {"proxy"}
    card = ModelCard.load(tmp_path / "mine" / "README.md")
    (result,) = card.data.eval_results
    assert (result.dataset_type, result.metric_value) == ("mini/knn", 41.25)
    assert card.data.license == "other"  # the boundary expert's images were for research
    assert "distilled at 64, 96 px (the architecture's own resolution is 192 px)" in card.text
    for words in ("| hed | MIT (package); trained on BSDS500", "| craft |", "efficientnet_lite0",
                  "Stage `finetuned`", "smooth_l1: 0.1", "| 41.25 % | 36."):  # fmt: skip
        assert words in card.text, words
    assert "path: /" not in card.content  # no folder of this machine
    assert str(quickstart.folder.parent) not in card.content
    results(folder, run, heads={"hed": "0123"})  # of a proxy that was trained again since
    call("save", run, tmp_path / "mine")
    assert not ModelCard.load(tmp_path / "mine" / "README.md").data.eval_results


def test_a_timm_student_is_saved_for_timm(tmp_path: Path) -> None:
    import timm

    encoder = openeupe.create("convnext_atto").eval()
    openeupe.encoders.save(encoder, tmp_path / "encoder")
    save(str(tmp_path / "encoder"), tmp_path / "out", "timm", licence="mit")
    model = timm.create_model(f"local-dir:{tmp_path / 'out'}", pretrained=True).eval()
    with torch.no_grad():
        assert torch.equal(model((IMAGES - encoder.mean) / encoder.std), encoder(IMAGES).cls)
    text = (tmp_path / "out" / "README.md").read_text()
    assert 'timm.create_model("local-dir:out", pretrained=True)' in text
    assert ModelCard.load(tmp_path / "out" / "README.md").data.license == "mit"


@pytest.mark.parametrize(
    ("name", "args"),
    [
        ("deit_tiny_distilled_patch16_224", {"depth": 1}),
        ("eupe_vit_t", {"depth": 1, "class_token": "mean"}),
        ("convnext_atto", {}),
    ],
)
def test_the_lines_of_the_card_give_the_tokens(
    name: str, args: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = openeupe.create(name, **args).eval()
    openeupe.encoders.save(encoder, tmp_path / "encoder")
    save(str(tmp_path / "encoder"), tmp_path / "out", "timm", licence="mit")
    text = (tmp_path / "out" / "README.md").read_text()
    block = text.split("```python\n")[2].split("```")[0]
    assert "import timm" in block
    monkeypatch.chdir(tmp_path)
    pixels = (torch.rand(1, 3, 224, 224) - encoder.mean) / encoder.std
    known: dict[str, Any] = {"pixels": pixels}
    with torch.no_grad():
        exec(block, known)
        tokens = encoder.tokens(pixels)
    torch.testing.assert_close(known["cls"], tokens.cls, rtol=1e-5, atol=1e-5)
    assert known["features"].numel() >= tokens.patches.numel()


def test_a_released_file_is_saved_for_transformers_with_its_heads(tmp_path: Path) -> None:
    from transformers import AutoModel

    path = write(tmp_path, "eupe_vit_t")
    save(str(path), tmp_path / "out", "transformers")
    encoder = openeupe.load(path)
    model = AutoModel.from_pretrained(tmp_path / "out").eval()
    with torch.no_grad():
        told = model((IMAGES - encoder.mean) / encoder.std).pooler_output
        torch.testing.assert_close(told, encoder(IMAGES).cls, rtol=0, atol=1e-5)
        tokens = encoder(IMAGES)
        kept, first = (load_heads(p)["proxy"](tokens) for p in (tmp_path / "out", path))
    assert torch.equal(kept.cls, first.cls)
    assert first.cls.shape == (1, 16)
    assert first.patches.shape == (1, 16, 4, 4)
    data = ModelCard.load(tmp_path / "out" / "README.md").data
    assert (data.license, data.license_name) == ("other", FAIR)
    assert licence_of(str(tmp_path / "out")).name == FAIR  # a student of it would inherit this


def test_a_released_file_teaches_and_its_licence_is_told(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    for i in range(4):
        Image.radial_gradient("L").rotate(60 * i).save(tmp_path / "photos" / f"{i}.png")
    teacher = {"encoder": str(write(tmp_path, "eupe_vit_t")), "resolution": 32}
    stage = {
        "teachers": {"eupe": teacher},
        "students": {"net": {"encoder": "test_resnet", "resolution": 32}},
        "steps": 1,
        "batch_size": 2,
        "head_hidden": 8,
        "statistics": {"iterations": 1},
        "optimizer": {"lr": 1e-3},
    }
    sources = [{"path": str(tmp_path / "photos")}]
    recipe = Recipe.model_validate(
        {"name": "small", "data": {"sources": sources}, "stages": {"one": stage}}
    )
    run_recipe(recipe, tmp_path / "run")
    save(str(tmp_path / "run"), tmp_path / "out", "timm")
    card = ModelCard.load(tmp_path / "out" / "README.md")
    assert (card.data.license, card.data.license_name) == ("other", FAIR)
    assert f"| EUPE-ViT-T.pt | {FAIR} | noncommercial research only" in card.text
    assert str(tmp_path) not in card.content


def test_no_folder_of_this_machine_is_saved_or_pushed(
    tmp_path: Path, raw_distillation: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = raw_distillation
    info = json.loads((run / "student" / "student" / "distillation.json").read_text())
    assert info["teachers"]["mine"]["encoder"].startswith("/")
    assert info["teachers"]["near"]["encoder"].count("/") > 1
    call("save", run, tmp_path / "saved")
    for file in (tmp_path / "saved").rglob("*"):
        for place in (str(tmp_path), "secret", "elsewhere"):
            assert place.encode() not in file.read_bytes(), (file, place)
    told = json.loads((tmp_path / "saved" / "distillation.json").read_text())["teachers"]
    assert {name: one["encoder"] for name, one in told.items()} == {
        "mine": "local/efficientnet_lite0", "near": "local/teacher", "known": "test_vit",
    }  # fmt: skip
    assert told["mine"]["resolution"] == [32]
    # What an earlier version saved is not pushed as it is.
    shutil.copy(run / "student" / "student" / "distillation.json", tmp_path / "saved")
    sent: dict[str, bytes] = {}
    monkeypatch.setenv("HF_TOKEN", "hf_x")
    client = huggingface_hub.HfApi
    monkeypatch.setattr(client, "create_repo", lambda *_, **__: None)
    monkeypatch.setattr(client, "upload_folder", lambda self, **given: sent.update(
        {n: (Path(given["folder_path"]) / n).read_bytes() for n in given["allow_patterns"]
         if (Path(given["folder_path"]) / n).is_file()}))  # fmt: skip
    monkeypatch.setattr(client, "upload_file", lambda self, **given: sent.update(
        {given["path_in_repo"]: given["path_or_fileobj"]}))  # fmt: skip
    push(tmp_path / "saved", "me/mine")
    assert {"model.safetensors", "distillation.json", "README.md"} <= set(sent)
    assert not [name for name, content in sent.items() if b"secret" in content]


def test_saving_replaces_no_finished_student_and_keeps_evaluations(
    tmp_path: Path, raw_distillation: Path
) -> None:
    student = raw_distillation / "student" / "student"
    before = {p.name: p.read_bytes() for p in student.iterdir()}
    with pytest.raises(InputError, match="finished student of a run: choose another folder"):
        save("untrained:test_vit", student)
    assert {p.name: p.read_bytes() for p in student.iterdir()} == before
    for _ in range(2):
        save(str(raw_distillation), tmp_path / "saved")
        results(tmp_path / "saved", tmp_path / "saved")
    kept = (tmp_path / "saved" / "evaluations" / "mini" / "results.json").read_text()
    save(str(raw_distillation), tmp_path / "saved", "timm")  # another layout, the same encoder
    assert (tmp_path / "saved" / "evaluations" / "mini" / "results.json").read_text() == kept
    save("untrained:test_vit", tmp_path / "saved")
    assert (tmp_path / "saved" / "evaluations" / "mini" / "results.json").read_text() == kept
    assert not (tmp_path / "saved" / "heads.safetensors").exists()


@pytest.fixture
def raw_distillation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run whose teachers are a folder by an absolute path, one by a relative path, and a name."""
    monkeypatch.chdir(tmp_path)
    places = {"mine": tmp_path / "secret" / "efficientnet_lite0", "near": Path("elsewhere/teacher")}
    for folder in places.values():
        encoders.save(openeupe.create("test_vit"), folder)
    (tmp_path / "images").mkdir()
    for i in range(4):
        Image.new("RGB", (40, 40), (60 * i, 90, 20)).save(tmp_path / "images" / f"{i}.png")
    teachers = {
        "mine": {"encoder": str(places["mine"]), "resolution": 32},
        "near": {"encoder": "../" + tmp_path.name + "/elsewhere/teacher", "resolution": 32},
        "known": {"encoder": "test_vit", "pretrained": False, "resolution": 32},
    }
    stage = {"teachers": teachers, "students": {"student": {"encoder": "test_vit2",
             "resolution": 32}}, "steps": 1, "batch_size": 2, "head_hidden": 8,
             "optimizer": {"lr": 1e-3}, "statistics": {"iterations": 1}}  # fmt: skip
    recipe = {"name": "r", "data": {"workers": 0, "sources": [{"path": "images"}]},
              "stages": {"student": stage}}  # fmt: skip
    run_recipe(Recipe.model_validate(recipe), tmp_path / "run")
    return tmp_path / "run"


def test_results_of_other_weights_are_not_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    source = "untrained:resnet10t"
    for name, there in (("test_resnet", 0), ("resnet10t", 1)):
        results(Path("evaluations/untrained_resnet10t"), f"untrained:{name}")
        for path in Path("evaluations/untrained_resnet10t/evaluations").iterdir():
            path.rename(Path("evaluations/untrained_resnet10t") / f"{path.name}-{name}")
        save(source, Path("out"), evaluations=Path("evaluations"))
        card = ModelCard.load(Path("out/README.md"))
        assert len(card.data.eval_results or []) == there


def test_saving_asks_before_it_destroys(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "one.jpg").write_text("x")
    with pytest.raises(InputError, match="holds something else than an encoder"):
        save("untrained:resnet10t", tmp_path / "photos")
    save("untrained:resnet10t", tmp_path / "it")
    with pytest.raises(InputError, match="is the encoder itself"):
        save(str(tmp_path / "it"), tmp_path / "it")
    with pytest.raises(InputError, match="transformers has no class for resnet10t"):
        save("untrained:resnet10t", tmp_path / "no", "transformers")
    assert not (tmp_path / "no").exists()


def test_licences_of_teachers_and_what_follows() -> None:
    assert licence_of("pe_core_g").permissive
    assert licence_of("dinov3_h_plus").name == "dinov3-license"
    assert "noncommercial" in licence_of("eupe_vit_b").follows
    assert licence_of("efficientnet_lite0").permissive
    assert not licence_of("hed").permissive
    assert "unknown here" in licence_of("no_such_network").follows


class FakeHub:
    """What `push` asks of the hub's client, written down."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, dict[str, Any]]] = []

    def create_repo(self, name: str, **options: Any) -> None:
        self.asked.append(("create", {"name": name, **options}))

    def upload_folder(self, **options: Any) -> None:
        self.asked.append(("folder", options))

    def upload_file(self, **options: Any) -> None:
        self.asked.append(("file", options))


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> FakeHub:
    fake = FakeHub()
    monkeypatch.setattr(huggingface_hub, "HfApi", lambda: fake)
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: "hf_secret")
    return fake


def test_push_uploads_the_folder_and_never_a_token(
    hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    save("untrained:convnext_atto", Path("mine"), "timm")
    Path("mine/notes.txt").write_text("private")
    assert "huggingface.co/me/mine-atto" in call("push", "mine", "me/mine-atto", "--private")
    kinds = dict(hub.asked)
    assert kinds["create"] == {"name": "me/mine-atto", "private": True, "exist_ok": True}
    assert "model.safetensors" in kinds["folder"]["allow_patterns"]
    assert "notes.txt" not in kinds["folder"]["allow_patterns"]
    gone = kinds["folder"]["delete_patterns"]  # or a former encoder's heads would lie next to it
    assert set(gone) >= {"heads.safetensors", "statistics.safetensors", "distillation.json"}
    assert not set(gone) & {"README.md", "config.json", "model.safetensors"}
    card = kinds["file"]["path_or_fileobj"].decode()
    assert 'timm.create_model("hf-hub:me/mine-atto", pretrained=True)' in card
    assert 'openeupe.load("hf-hub:me/mine-atto")' in card
    assert "hf_secret" not in str(hub.asked)
    assert not any("hf_secret" in p.read_text(errors="ignore") for p in Path("mine").iterdir())


def test_push_says_what_is_missing(
    hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(InputError, match=r"lacks README.md: make it with openeupe save"):
        push(tmp_path, "me/it")
    save("untrained:resnet10t", tmp_path / "it")
    with pytest.raises(InputError, match="a repository is OWNER/NAME"):
        push(tmp_path / "it", "it")

    def refuse(name: str, **_: Any) -> None:
        raise RuntimeError("401 Client Error.\nmore")

    monkeypatch.setattr(hub, "create_repo", refuse)
    with pytest.raises(InputError, match="cannot be written"):
        push(tmp_path / "it", "me/it")
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: None)
    with pytest.raises(InputError, match="there is no token for the hub: set HF_TOKEN"):
        push(tmp_path / "it", "me/it")
