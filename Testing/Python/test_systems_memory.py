"""Sim-MPNet: memories of the classes, read by attention, written while training alone, and runs that use them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from synthetic import write_cases
from training_cases import CPU, Listener, assert_same, resume, train

from ForgettableSegLib.cases.case import CaseList
from ForgettableSegLib.cases.labels import IGNORE_LABEL
from ForgettableSegLib.errors import Cancelled, ErrorCode, ForgettableSegError
from ForgettableSegLib.inference.calibration import calibrate
from ForgettableSegLib.inference.predictor import Predictor
from ForgettableSegLib.mining.prototypes import LearnedPrototypes, Prototypes
from ForgettableSegLib.mining.scores import difficulty_scores
from ForgettableSegLib.models.package import ModelPackage
from ForgettableSegLib.network.build import build_network
from ForgettableSegLib.network.memory import ITEMS, KEPT, ClassMemory, tokens
from ForgettableSegLib.training.distributed import ProcessGroup
from ForgettableSegLib.training.export import model_package
from ForgettableSegLib.training.memory_writer import MemoryWriter, position_labels, renewed_items

ARGUMENTS = {"spatial_dims": 2, "in_channels": 1, "out_channels": 3, "features": (4, 6, 8)}


@pytest.fixture
def memory() -> ClassMemory:
    """Three classes of four numbers, the first two with vectors, with an output that is not zero."""
    torch.manual_seed(0)
    memory = ClassMemory(3, 4, 2)
    torch.nn.init.normal_(memory.o.weight)
    memory.write(0, torch.randn(ITEMS, 4) + 3, 0)
    memory.write(1, torch.randn(7, 4) - 3, 0)
    return memory


def state(memory: ClassMemory) -> list[torch.Tensor]:
    """What a memory holds."""
    return [memory.items.clone(), memory.filled.clone()]


def test_a_new_memory_leaves_the_plain_network() -> None:
    image = torch.randn(2, 1, 17, 12)
    torch.manual_seed(1)
    plain = build_network(ARGUMENTS)
    torch.manual_seed(1)
    network = build_network({**ARGUMENTS, "memory": True})
    assert torch.equal(network(image), plain(image))


def test_a_new_memory_answers_with_what_is_alike() -> None:
    torch.manual_seed(3)
    memory = ClassMemory(2, 8, 2)
    middles = torch.tensor([[4.0] * 4 + [0.0] * 4, [0.0] * 4 + [4.0] * 4])  # of what each class looks like
    shown = (middles[:, None] + 0.3 * torch.randn(2, 50, 8)).transpose(1, 2).unsqueeze(3)
    for label, vectors in enumerate(tokens(memory.phi(shown))):
        memory.write(label, vectors, 0)
    asked = (middles[:, None] + 0.3 * torch.randn(2, 20, 8)).transpose(1, 2).unsqueeze(3)
    assert memory.answers(asked).argmax(1).squeeze(2).tolist() == [[0] * 20, [1] * 20]


def test_reading_by_hand(memory: ClassMemory) -> None:
    x = torch.randn(1, 4, 2, 3)
    theta, phi, g = (tokens(each(x))[0] for each in (memory.theta, memory.phi, memory.g))
    means = [memory.items[0].mean(0), memory.items[1, :7].mean(0)]
    answers, chosen = torch.zeros(6, 4), []
    for i in range(6):
        c = max((0, 1), key=lambda c: torch.cosine_similarity(theta[i], means[c], dim=0).item())
        chosen.append(c)
        bank = memory.items[c][memory.filled[c] > 0]
        answers[i] = (bank @ theta[i] / 2).softmax(0) @ bank + (phi @ theta[i] / 2).softmax(0) @ g
    expected = x + memory.o(answers.t().reshape(x.shape))
    torch.testing.assert_close(memory(x), expected, rtol=1e-4, atol=1e-5)
    assert memory.answering(theta.unsqueeze(0))[0].tolist() == chosen
    assert memory.answers(x).argmax(1).flatten().tolist() == chosen


def test_the_order_of_the_vectors_is_nothing(memory: ClassMemory) -> None:
    x = torch.randn(2, 4, 3, 3)
    read, far = memory(x), memory.distances(x)
    order = torch.randperm(ITEMS)
    memory.items, memory.filled = memory.items[:, order], memory.filled[:, order]
    torch.testing.assert_close(memory(x), read)
    torch.testing.assert_close(memory.distances(x), far)


def test_distances_are_those_to_the_nearest_vector(memory: ClassMemory) -> None:
    x = torch.randn(1, 4, 2, 2)
    phi = tokens(memory.phi(x))[0]
    found = memory.distances(x).flatten(2)[0]
    for c, count in ((0, ITEMS), (1, 7)):
        expected = torch.cdist(phi, memory.items[c, :count]).square().amin(1) / 4
        torch.testing.assert_close(found[c], expected, rtol=1e-3, atol=1e-4)
    assert found[2].isinf().all()


def test_no_forward_pass_writes_and_evaluation_cannot(memory: ClassMemory) -> None:
    before = state(memory)
    for training in (True, False):
        memory.train(training)
        memory(torch.randn(2, 4, 3, 3)).sum().backward()
        assert all(torch.equal(one, other) for one, other in zip(state(memory), before, strict=True))
    with pytest.raises(RuntimeError, match="while training only"):
        memory.write(1, torch.randn(3, 4), 2)
    assert all(torch.equal(one, other) for one, other in zip(state(memory), before, strict=True))


def test_free_items_are_filled_then_the_least_asked_for_take_in_the_most_typical(memory: ClassMemory) -> None:
    new = torch.randn(ITEMS - 7 + 5, 4)
    memory.write(1, new, 2)
    assert memory.filled[1].min() == 1
    kept, left = new[: ITEMS - 7], new[ITEMS - 7 :]
    full = memory.items[1].clone()
    full[7:] = kept
    changed = (memory.items[1] != full).any(1).nonzero().flatten()
    assert len(changed) <= 2
    items = memory.items[1].clone()
    memory.write(1, left, 3)
    similarity = left @ items.t() / 2
    least = similarity.softmax(1).sum(0).argsort()[:3]
    typical = similarity.softmax(0).sum(1).argsort(descending=True)[:3]
    torch.testing.assert_close(memory.items[1, least], KEPT * items[least] + (1 - KEPT) * left[typical])
    others = torch.ones(ITEMS, dtype=torch.bool)
    others[least] = False
    assert torch.equal(memory.items[1, others], items[others])


@pytest.mark.parametrize(("before", "now", "expected"), [
    (None, 1.0, 50), (1.0, 1.0, 50), (1.0, 0.8, 40), (0.8, 1.0, 60), (1.0, 0.5, 25), (0.5, 1.0, 75),
    (2.0, 1.0, 50), (1.0, 2.0, 50), (1.0, float("inf"), 50),
])  # fmt: skip
def test_k_follows_the_loss_and_stays_in_bounds(before: float | None, now: float, expected: int) -> None:
    assert renewed_items(before, now) in (expected, expected - 1)  # int() of 39.99..
    assert ITEMS // 4 <= renewed_items(before, now) <= 3 * ITEMS // 4


def test_the_label_of_a_position() -> None:
    labels = torch.zeros(1, 8, 7, dtype=torch.uint8)
    labels[0, 0, :2] = 2  # 2 of 16 voxels: more than a tenth
    labels[0, 0, 4] = 1  # 1 of 12 voxels
    labels[0, 4:, :4] = IGNORE_LABEL
    assert position_labels(labels, 3, (2, 2), 4).tolist() == [[2, 0, IGNORE_LABEL, 0]]
    assert position_labels(labels[:, None].expand(1, 2, 8, 7), 3, (1, 2, 2), 4).shape == (1, 4)


@pytest.mark.parametrize("rule", ["wld", "lowest", "random"])
def test_a_writer_takes_labelled_positions_alone_and_goes_on_from_its_state(memory: ClassMemory, rule: str) -> None:
    def writer() -> MemoryWriter:
        return MemoryWriter(memory, rule=rule, block=4, seed=3, group=ProcessGroup())

    torch.nn.init.zeros_(memory.items)
    torch.nn.init.zeros_(memory.filled)
    labels = torch.full((2, 8, 8), IGNORE_LABEL, dtype=torch.uint8)
    labels[0, :4], labels[1, 4:] = 2, 1
    one = writer()
    for step in range(60):
        number = one.write(torch.randn(2, 4, 2, 2), labels, 1.0 / (step + 1))
        assert ITEMS // 4 <= number <= 3 * ITEMS // 4
    assert memory.filled.sum(1).tolist() == [0, 100, 100]
    before, bottleneck = state(memory), torch.randn(2, 4, 2, 2)
    other = writer()
    other.load_state_dict(one.state_dict())
    one.write(bottleneck, labels, 0.5)
    after = state(memory)
    memory.items, memory.filled = before
    other.write(bottleneck, labels, 0.5)
    assert all(torch.equal(a, b) for a, b in zip(state(memory), after, strict=True))


def test_a_class_without_vectors_is_very_far_and_spoils_no_score() -> None:
    distances = torch.rand(1, 3, 4, 4)
    distances[:, 2] = torch.inf
    labels = torch.randint(0, 3, (1, 4, 4))
    prototypes = LearnedPrototypes(3, 0)
    prototypes.update(distances, labels)
    assert prototypes.count.tolist() == [1, 1, 0]
    scores = difficulty_scores(torch.randn(1, 3, 4, 4), labels, prototypes, features=distances)
    assert scores.samples.isfinite().all()
    assert scores.voxels.isfinite().all()


def test_a_run_with_memories_resumes_bit_for_bit_and_shows_which_answers(tmp_path: Path) -> None:
    cases: CaseList = write_cases(tmp_path / "cases", 6, shape=(4, 20, 18))
    settings = {
        "memory": "class",
        "prototypes": "memory",
        "iterations": 10,
        "validate_every": 5,
        "fusion": "visual_query",
    }
    whole = train(cases, tmp_path / "whole", settings=settings)
    with pytest.raises(Cancelled):
        train(cases, tmp_path / "cut", Listener(stop_at=4), settings=settings)
    assert_same(whole, resume(tmp_path / "cut"))
    assert whole.network.memory.filled.sum(1).min() > 0
    prototypes, patch = Prototypes.from_tensors(**whole.prototypes), whole.config.patch_size
    options = {"spatial_dims": 2, "patch_size": patch, "device": CPU, "features": "memory"}
    counted = calibrate(whole.network, prototypes, whole.validation_cases, **options)
    assert any(name.startswith("calibration.score") for name in counted)
    package = ModelPackage.read(model_package(whole, device=CPU, calibration=counted).write(tmp_path / "model.zip"))
    found = Predictor(package, CPU).segment_case(next(iter(cases)))
    assert set(found.difficulty) == {"confidence", "prototype_ratio", "memory"}
    assert set(found.difficulty["memory"].flatten().round().tolist()) <= {0, 50, 100}
    # Fine-tuned, a memory goes on with what it holds, whether it is asked for again or not.
    again = train(cases, tmp_path / "again", settings={"iterations": 1, "learning_rate": 1e-8}, start=package)
    assert again.network.memory.filled.sum() >= whole.network.memory.filled.sum()
    with pytest.raises(ForgettableSegError, match="none that its network has learnt") as caught:
        package.with_parts({"network": {**package.card["network"], "memory": False}})
    assert caught.value.code == ErrorCode.MODEL_INVALID
