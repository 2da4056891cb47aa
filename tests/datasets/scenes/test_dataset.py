"""Procedural scenes are pure, and their truths agree with their pictures and with each other."""

from __future__ import annotations

import pickle
from collections import Counter

import numpy as np
import pytest
from scipy import ndimage
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier

from openeupe.datasets.scenes.dataset import CLASSES, HELD_OUT, Scenes
from openeupe.datasets.scenes.shapes import POINTS, SHAPES, Pose
from openeupe.datasets.scenes.staging import CAMERA_HEIGHT_M, COLOURS

RESOLUTION = 96


@pytest.fixture(scope="module")
def objects() -> Scenes:
    return Scenes(24, content="object", resolution=RESOLUTION)


@pytest.fixture(scope="module")
def scenes() -> Scenes:
    return Scenes(24, resolution=RESOLUTION)


@pytest.mark.parametrize("content", ["object", "scene"])
def test_an_image_depends_on_seed_split_and_index_alone(content: str) -> None:
    first = Scenes(30, content=content, resolution=RESOLUTION)
    expected = [first.read(i).tobytes() for i in range(12)]
    assert len(set(expected)) == 12
    again = pickle.loads(pickle.dumps(Scenes(12, content=content, resolution=RESOLUTION)))
    order = [7, 3, 11, 0, 5, 2, 9, 1, 4, 10, 8, 6]  # more than the cache holds
    for i in order:
        assert again.read(i).tobytes() == expected[i]
    for other in (
        Scenes(30, content=content, resolution=RESOLUTION, seed=1),
        Scenes(30, content=content, resolution=RESOLUTION, split="test"),
    ):
        assert other.read(3).tobytes() not in expected
        assert other.fingerprint != first.fingerprint


def test_what_a_set_hands_out_is_not_shared(objects: Scenes) -> None:
    before = objects.depth(0)
    objects.depth(0)[:] = 0
    objects.mask(0)[:] = 0
    np.testing.assert_array_equal(objects.depth(0), before)
    assert objects.mask(0).any()


def test_names_are_unique_over_splits_and_contents() -> None:
    sets = [
        Scenes(5, split=split, content=content)
        for split in ("train", "test")
        for content in ("object", "scene")
    ]
    names = [data.name(i) for data in sets for i in range(len(data))]
    assert len(set(names)) == len(names)
    assert Scenes(13, split="test").name(12) == "scene-test-00012"


def test_indices_outside_and_wrong_settings_are_refused(objects: Scenes, scenes: Scenes) -> None:
    for call in (objects.read, objects.mask, objects.depth, objects.keypoints, objects.box):
        with pytest.raises(IndexError):
            call(24)
    for settings in ({"count": 0}, {"count": 1, "resolution": 8}):
        with pytest.raises(ValueError, match="scenes need"):
            Scenes(**settings)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="object"):
        scenes.pairs()
    with pytest.raises(ValueError, match="scene"):
        objects.questions()
    with pytest.raises(ValueError, match="object"):
        scenes.label(0)


def test_classes_are_balanced_and_a_longer_set_begins_with_the_shorter() -> None:
    labels = [Scenes(120, content="object").label(i) for i in range(120)]
    assert set(Counter(labels).values()) == {10}
    assert labels[:30] == [Scenes(30, content="object").label(i) for i in range(30)]
    assert labels[:12] != labels[12:24]


def test_the_labelled_object_is_what_the_mask_shows(objects: Scenes) -> None:
    for i in range(len(objects)):
        mask, label = objects.mask(i), objects.label(i)
        assert mask.shape == (RESOLUTION, RESOLUTION)
        assert set(np.unique(mask)) == {0, 1 + label}
        assert objects.mask_classes[1 + label] == objects.classes[label]
        assert (mask == 1 + label).mean() > 0.02
        x0, y0, x1, y1 = objects.box(i)
        rows, columns = np.nonzero(mask)
        assert x0 - 1 <= columns.min()
        assert columns.max() <= x1 + 1
        assert y0 - 1 <= rows.min()
        assert rows.max() <= y1 + 1


def test_every_object_of_a_scene_is_seen() -> None:
    scenes = Scenes(40, resolution=224)
    for i in range(40):
        stage, mask = scenes.stage(i), scenes.mask(i)
        kinds = Counter(thing.kind for thing in stage.things)
        seen = {scenes.mask_classes[value] for value in np.unique(mask)} - {"background"}
        assert seen == set(kinds)
        for kind, number in kinds.items():
            pixels = (mask == scenes.mask_classes.index(kind)).sum()
            assert pixels > 80 * number


def test_depth_is_the_floors_perspective_and_grows_upwards(objects: Scenes) -> None:
    for i in range(len(objects)):
        depth, room = objects.depth(i), objects.stage(i).room
        assert depth.dtype == np.float32
        assert depth.min() >= 0.5
        assert depth.max() <= 10
        owner = objects._picture(i).owner
        rows, columns = np.nonzero(owner < 0)
        slope = (rows + 0.5) / RESOLUTION - room.horizon
        with np.errstate(divide="ignore"):
            floor = np.where(slope > 0, CAMERA_HEIGHT_M / slope, np.inf)
        np.testing.assert_allclose(depth[rows, columns], np.minimum(floor, room.wall_m), rtol=1e-4)


def test_nearer_things_hide_farther_ones_and_stand_before_what_surrounds_them(
    scenes: Scenes,
) -> None:
    for i in range(len(scenes)):
        stage, picture = scenes.stage(i), scenes._picture(i)
        depths = [thing.depth_m for thing in stage.things]
        assert depths == sorted(depths, reverse=True)
        # Where two things' outlines touch the picture shows the nearer: no edge of a thing is
        # cut by something farther. The last thing is the nearest: nothing may cut it.
        inside = picture.owner == len(stage.things) - 1
        around = ndimage.binary_dilation(inside, iterations=2) & ~inside
        assert picture.depth[inside].mean() <= picture.depth[around].mean() + 1e-6
        # A thing meets the floor where the floor is as far as the thing: it stands, not floats.
        for thing in stage.things:
            contact = thing.outline.box()[3] - stage.room.horizon
            assert CAMERA_HEIGHT_M / contact == pytest.approx(thing.depth_m, rel=0.02)


def test_the_picture_changes_at_the_masks_edges(objects: Scenes) -> None:
    """Mask and picture are drawn from one outline: strong edges lie on the mask's border."""
    on, off = [], []
    for i in range(len(objects)):
        gray = np.asarray(objects.read(i).convert("L"), np.float32)
        edge = np.hypot(ndimage.sobel(gray, 0), ndimage.sobel(gray, 1))
        inside = objects.mask(i) > 0
        border = ndimage.binary_dilation(inside) & ~ndimage.binary_erosion(inside)
        on.append(edge[border].mean())
        off.append(edge[~ndimage.binary_dilation(border, iterations=2)].mean())
    assert np.mean(on) > 1.8 * np.mean(off)


def test_keypoints_lie_on_the_object_and_are_named_by_its_class(objects: Scenes) -> None:
    found = 0
    for i in range(len(objects)):
        shape = CLASSES[objects.label(i)]
        points = objects.keypoints(i)
        assert set(points) <= set(POINTS[shape])
        found += len(points) / len(POINTS[shape])
        mask = objects.mask(i)
        x0, y0, x1, y1 = objects.box(i)
        for x, y in points.values():
            assert mask[int(y), int(x)] == 1 + objects.label(i)
            assert x0 <= x <= x1
            assert y0 <= y <= y1
    assert found / len(objects) > 0.75  # some are hidden, most are not


def test_keypoints_and_outline_move_together() -> None:
    """A point of the template, followed through a pose, stays at its place in the outline."""
    rng = np.random.default_rng(0)
    for outline in SHAPES.values():
        pose = Pose.draw(rng)
        posed = outline.posed(pose).moved(0.5, 3, 4)
        expected = pose.apply(outline.points) * 0.5 + np.array([3, 4])
        np.testing.assert_allclose(posed.points, expected, rtol=1e-5)
        np.testing.assert_allclose(
            posed.parts[0], pose.apply(outline.parts[0]) * 0.5 + [3, 4], 1e-5
        )


def test_pairs_are_of_one_class_and_never_of_one_image() -> None:
    data = Scenes(60, content="object")
    pairs = data.pairs(per_class=15)
    assert pairs == Scenes(60, content="object").pairs(per_class=15)
    assert len(set(pairs)) == len(pairs) == 15 * len(CLASSES)
    for source, target, category in pairs:
        assert source != target
        assert CLASSES[data.label(source)] == category == CLASSES[data.label(target)]
    assert len(data.pairs(per_class=10**6)) == len(CLASSES) * 5 * 4


def test_held_out_combinations_occur_in_the_test_split_only() -> None:
    assert len(HELD_OUT) == len(CLASSES)
    seen, asked = {}, {}
    for split in ("train", "test"):
        data = Scenes(150, split=split)
        things = [thing for i in range(150) for thing in data.stage(i).things]
        seen[split] = {(thing.kind, thing.colour) for thing in things if thing.colour}
        words = [q.text.rstrip("?").split() for q in data.questions() if q.ability == "exist"]
        asked[split] = {(w[-1], w[-2]) for w in words}
    assert not seen["train"] & HELD_OUT
    assert not asked["train"] & HELD_OUT
    assert len(seen["test"] & HELD_OUT) == len(HELD_OUT)
    assert asked["test"] & HELD_OUT


def test_answers_are_true_of_the_scene() -> None:
    data = Scenes(200, split="test")
    relations = {
        "left of": lambda a, b: a.box[0] + a.box[2] < b.box[0] + b.box[2],
        "right of": lambda a, b: a.box[0] + a.box[2] > b.box[0] + b.box[2],
        "closer than": lambda a, b: a.depth_m < b.depth_m,
        "farther away than": lambda a, b: a.depth_m > b.depth_m,
    }
    abilities = Counter()
    for question in data.questions():
        stage = data.stage(question.image)
        held = [(thing.kind, thing.colour) for thing in stage.things if thing.kind in CLASSES]
        shapes = Counter(shape for shape, _ in held)
        words = question.text.rstrip("?").split()
        abilities[question.ability] += 1
        (answer,) = question.answers
        if question.ability == "exist":
            assert (answer == "yes") == ((words[-1], words[-2]) in held)
        elif question.ability == "count":
            plural = words[2]
            matching = [s for s in CLASSES if plural in (s, f"{s}s", f"{s}es")]
            assert len(matching) == 1
            assert shapes[matching[0]] == int(answer)
        elif question.ability == "attribute":
            assert shapes[words[-1]] == 1
            assert (words[-1], answer) in held
        elif question.ability == "spatial":
            first, second = words[2], words[-1]
            relation = " ".join(words[3:-2])
            assert shapes[first] == shapes[second] == 1
            a, b = (next(t for t in stage.things if t.kind == s) for s in (first, second))
            assert relations[relation](a, b) == (answer == "yes")
        elif question.ability == "read":
            assert stage.sign is not None
            assert stage.sign.text.lower() == answer
        else:
            chosen = question.choices["ABCD".index(answer)]
            assert len(set(question.choices)) == 4
            if "sign" in question.text:
                assert stage.sign.text.lower() == chosen
            else:
                assert [c for c in question.choices if shapes[c]] == [chosen]
    assert set(abilities) == {"exist", "count", "attribute", "spatial", "read", "choose"}
    assert min(abilities.values()) > 120


def test_a_blind_guesser_is_near_chance() -> None:
    """Neither the commonest answer nor a classifier of the question's words does much better."""
    train, test = (Scenes(500, split=split).questions() for split in ("train", "test"))
    chance = {"exist": 0.5, "count": 0.2, "attribute": 1 / len(COLOURS), "spatial": 0.5}
    chance |= {"read": 0.01, "choose": 0.25}
    for ability, level in chance.items():
        texts, answers = ([], []), ([], [])
        for part, questions in enumerate((train, test)):
            for question in questions:
                if question.ability == ability:
                    texts[part].append(" ".join((question.text, *question.choices)))
                    answers[part].append(question.answers[0])
        top = Counter(answers[1]).most_common(1)[0][1] / len(answers[1])
        assert top < level + 0.06
        if ability == "read":  # one question for all: the commonest answer is all there is
            continue
        words = CountVectorizer(ngram_range=(1, 2))
        blind = LogisticRegression(C=0.1, max_iter=50)
        blind.fit(words.fit_transform(texts[0]), answers[0])
        assert blind.score(words.transform(texts[1]), answers[1]) < level + 0.09


def test_raw_pixels_and_mean_colour_do_not_tell_the_class() -> None:
    features, labels = {"pixels": [], "colour": []}, []
    data = Scenes(720, content="object", resolution=64)
    for i in range(len(data)):
        image = data.read(i)
        features["pixels"].append(np.asarray(image.resize((16, 16)), np.float32).ravel())
        inside = data.mask(i) > 0
        features["colour"].append(np.asarray(image)[inside].mean(axis=0))  # of the object itself
        labels.append(data.label(i))
    for name, limit in (("pixels", 0.2), ("colour", 0.2)):
        x, y = np.array(features[name]), np.array(labels)
        score = KNeighborsClassifier(10).fit(x[:600], y[:600]).score(x[600:], y[600:])
        assert score < limit, name  # chance is 0.083
