"""The hooks of a training, each with a small method that uses it."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from czslkit import Feed, Method, SoftPrompt, load_backbone
from czslkit.errors import ConfigError, TrainingError
from czslkit.evaluation.validation import validation_loss
from czslkit.heads import CosineHead
from czslkit.learned_state import learned_state
from czslkit.training import epoch as one_epoch
from czslkit.training.options import TrainOptions
from czslkit.training_hooks import AveragedWeights, TrainingPosition
from czslkit.types import ImageFeatures, pair_targets


class Csp(Method):
    """CSP without dropout; the base of the methods below."""

    def __init__(self, clip_file, space, **prompt):
        backbone = load_backbone(str(clip_file))
        prompt = SoftPrompt(backbone, space, **prompt)
        super().__init__(space=space, backbone=backbone, prompt=prompt, head=CosineHead(backbone.scale))


class LogitAdjustment(Csp):
    """Subtracts the log of a pair's share of the training images in the loss."""

    def __init__(self, clip_file, space):
        super().__init__(clip_file, space)
        self.register_buffer("prior", torch.zeros(len(space.pairs)))

    def prepare(self, data):
        self.prior.copy_((data.pair_counts.clamp(min=1) / len(data)).log())

    def loss(self, batch, pairs):
        prior = self.prior[self.space.seen]  # the candidates of a training are the seen pairs
        return F.cross_entropy(self(batch.images, self.text(pairs)).pair + prior, pair_targets(batch, pairs))


class HardNegatives(Csp):
    """Each image comes with an image of the same object and another attribute, from which it is pushed away."""

    def companions(self, data, index, generator):
        same = (data.obj[index][:, None] == data.obj) & (data.attr[index][:, None] != data.attr)  # [B, N]
        noise = torch.rand(same.shape, generator=generator)
        return {"same_object": (same * noise).argmax(1)}

    def loss(self, batch, pairs):
        text, negative = self.text(pairs), batch.companions["same_object"]
        own, other = (self(b.images, text).pair for b in (batch, negative))
        target = pair_targets(batch, pairs)[:, None]
        margin = F.relu(1 - own.gather(1, target) + other.gather(1, target)).mean()
        return {"pair": F.cross_entropy(own, target[:, 0]), "margin": 0.1 * margin}


class ConceptShift(Csp):
    """CAILA's mixed images: the loss also sees the mean of an image and one with the same attribute."""

    def companions(self, data, index, generator):
        same = data.attr[index][:, None] == data.attr
        return {"same_attr": (same * torch.rand(same.shape, generator=generator)).argmax(1)}

    def loss(self, batch, pairs):
        image, other = self.encode_if_pixels(batch), self.encode_if_pixels(batch.companions["same_attr"])
        mixed = ImageFeatures((image.pooled + other.pooled) / 2)
        return sum(self.head.loss(self(i, self.text(pairs)), batch, pairs) for i in (image, mixed))

    def encode_if_pixels(self, batch):
        return batch.images if isinstance(batch.images, ImageFeatures) else self.encode(batch.images)


class Balanced(Csp):
    """As many images of each pair in an epoch, drawn with replacement."""

    def sample_order(self, data, epoch, generator):
        weights = 1 / data.pair_counts[data.pair].float()
        return torch.multinomial(weights, len(data), replacement=True, generator=generator)


class TwoOptimizers(Csp):
    """Words by Adam as the settings say, the context by SGD with its own momentum and ten times the rate."""

    def __init__(self, clip_file, space):
        super().__init__(clip_file, space, learn_context=True)

    def parameter_groups(self):
        sgd = {"optimizer": torch.optim.SGD, "momentum": 0.5, "lr_scale": 10, "weight_decay": 0.0}
        return [{"params": [self.prompt.words]}, {"params": self.prompt.context.parameters(), **sgd}]


class EmaTeacher(Csp):
    """The words follow their own average, which is also what is evaluated."""

    def __init__(self, clip_file, space):
        super().__init__(clip_file, space)
        self.teacher = AveragedWeights(self, decay=0.9)

    def after_step(self, position):
        self.teacher.update(self)

    def evaluation_weights(self):
        return self.teacher.tensors()

    def loss(self, batch, pairs):
        student = self(batch.images, self.text(pairs))
        with torch.no_grad():
            soft = torch.func.functional_call(self, self.teacher.tensors(), (batch.images, self.text(pairs))).pair
        return self.head.loss(student, batch, pairs) + F.kl_div(
            student.pair.log_softmax(1), soft.softmax(1), reduction="batchmean"
        )


class Queue(Csp):
    """A queue of pooled features, and a counter in Python, that a resumed training continues."""

    def __init__(self, clip_file, space):
        super().__init__(clip_file, space)
        self.register_buffer("queue", torch.zeros(16, self.backbone.dim))
        self.seen_images = 0

    def loss(self, batch, pairs):
        image = batch.images if isinstance(batch.images, ImageFeatures) else self.encode(batch.images)
        self.latest = image.pooled.detach()
        text = self.text(pairs)
        uniform = (F.normalize(text.pair, dim=-1) @ F.normalize(self.queue, dim=-1).T).mean()
        return self.head.loss(self(image, text), batch, pairs) + uniform * (1 + self.seen_images / 100)

    def after_step(self, position):
        self.queue.copy_(torch.cat((self.latest, self.queue))[:16])
        self.seen_images += len(self.latest)

    def training_state(self):
        return {"seen_images": torch.tensor(self.seen_images)}

    def load_training_state(self, state):
        self.seen_images = int(state["seen_images"])


class LateUnfreezing(Csp):
    """The last visual projection learns from the second epoch on, at a tenth of the rate."""

    def __init__(self, clip_file, space):
        super().__init__(clip_file, space)
        self.late = self.backbone.clip.visual.proj

    def parameter_groups(self):
        return [{"params": [self.prompt.words]}, {"params": [self.late], "lr_scale": 0.1}]

    def before_epoch(self, position):
        self.late.requires_grad_(position.epoch >= 1)


METHODS = [LogitAdjustment, HardNegatives, ConceptShift, Balanced, TwoOptimizers, EmaTeacher, Queue, LateUnfreezing]


@pytest.mark.parametrize("augment", [False, True])
@pytest.mark.parametrize("cls", METHODS)
def test_a_method_with_hooks_learns_and_resumes_to_the_bit(run, killed_before, toy, clip_file, cls, augment):
    whole, record = run(cls, "whole", augment=augment)
    with killed_before(2):
        run(cls, "killed", augment=augment)
    resumed, resumed_record = run(cls, "killed", augment=augment)
    assert resumed_record.history == record.history
    for name, value in learned_state(whole).items():
        assert torch.equal(value, learned_state(resumed)[name]), name
    start = learned_state(cls(clip_file, toy.space))
    assert not torch.equal(start["prompt.words"], learned_state(whole)["prompt.words"])


def test_prepare_sees_the_training_split_and_its_counts(run, toy):
    method, _ = run(LogitAdjustment, epochs=1)
    data = toy.training_data()
    shown = list(zip(toy.train.attr.tolist(), toy.train.obj.tolist(), strict=True))
    counts = [shown.count(tuple(pair)) for pair in toy.space.pairs.tolist()]
    assert data.pair_counts.tolist() == counts
    assert (data.name, data.root, len(data)) == ("toys", toy.root, 21)
    assert data.attr_counts.tolist() == [int((toy.train.attr == a).sum()) for a in range(len(toy.space.attrs))]
    assert data.obj_counts.tolist() == [int((toy.train.obj == o).sum()) for o in range(len(toy.space.objs))]
    torch.testing.assert_close(method.prior, (torch.tensor(counts).clamp(min=1) / 21).log())


def test_parts_of_a_loss_go_to_history_and_log(run):
    said = []
    _, record = run(HardNegatives, said=said, epochs=1)
    (row,) = record.history
    assert row["loss"] == pytest.approx(row["loss/pair"] + row["loss/margin"])
    assert said[0].startswith(
        f"epoch 1/1: loss {row['loss']:.3f} (pair {row['loss/pair']:.3f}, margin {row['loss/margin']:.3f}), validation"
    )


@pytest.mark.parametrize("augment", [False, True])
def test_companions_are_images_of_the_training_split(toy, clip_file, augment):
    method = HardNegatives(clip_file, toy.space)
    feed = Feed(method, toy.train, 8, augment=augment, seed=3)
    chosen = torch.tensor([20, 0, 5])
    (batch,) = feed.batches(torch.arange(1, 4), 1, companions=lambda index: {"some": chosen})
    companions = batch.companions["some"]
    assert companions.index.tolist() == chosen.tolist()
    assert companions.attr.tolist() == toy.train.attr[chosen].tolist()
    (expected,) = feed.batches(chosen, 1)
    one, other = (b.images if augment else b.images.pooled for b in (companions, expected))
    assert torch.equal(one, other)


def test_an_image_may_have_no_companion(toy, clip_file):
    feed = Feed(HardNegatives(clip_file, toy.space), toy.train, 8)
    chosen = {"some": torch.tensor([-1, 4, -1, 2]), "none": torch.full((4,), -1)}
    (batch,) = feed.batches(torch.arange(4), 1, companions=lambda index: chosen)
    some, none = batch.companions["some"], batch.companions["none"]
    assert (some.rows.tolist(), some.index.tolist()) == ([1, 3], [4, 2])
    assert len(none.attr) == len(none.images.pooled) == len(none.rows) == 0
    (expected,) = feed.batches(torch.tensor([4, 2]), 1)
    assert torch.equal(some.images.pooled, expected.images.pooled)


def test_repeats_of_an_image_have_augmentations_of_their_own(toy, clip_file):
    feed = Feed(HardNegatives(clip_file, toy.space), toy.train, 2, augment=True, seed=3)
    first, second = feed.batches(torch.tensor([5, 5, 5]), 1, companions=lambda index: {"same": index[:1]})
    views = [*first.images, *first.companions["same"].images, *second.images]
    assert not any(torch.equal(one, other) for i, one in enumerate(views) for other in views[:i])
    (alone,) = feed.batches(torch.tensor([5]), 1)
    assert torch.equal(views[0], alone.images[0])
    again, _ = feed.batches(torch.tensor([5, 5, 5]), 1, companions=lambda index: {"same": index[:1]})
    assert torch.equal(again.images, first.images)


def test_an_order_may_leave_out_and_repeat_images(run):
    class Few(Csp):
        def sample_order(self, data, epoch, generator):
            return torch.tensor([3, 3, 4, 5, 5])

    indices = []

    class Recorded(Few):
        def loss(self, batch, pairs):
            indices.append(batch.index.tolist())
            return super().loss(batch, pairs)

    run(Recorded, batch_size=2, epochs=1)
    assert indices == [[3, 3], [4, 5]]  # a last batch of one image is left out


def test_groups_have_their_own_optimiser_rate_and_decay(toy, clip_file):
    from czslkit.training.optimizers import make_optimizers

    method = TwoOptimizers(clip_file, toy.space)
    adam, sgd = make_optimizers(method, TrainOptions(lr=0.1, weight_decay=0.5))
    assert isinstance(adam, torch.optim.Adam) and isinstance(sgd, torch.optim.SGD)
    assert (adam.param_groups[0]["lr"], adam.param_groups[0]["weight_decay"]) == (0.1, 0.5)
    assert {key: sgd.param_groups[0][key] for key in ("lr", "weight_decay", "momentum")} == {
        "lr": 1.0,
        "weight_decay": 0.0,
        "momentum": 0.5,
    }


def test_evaluation_uses_the_average_and_training_goes_on_without_it(run, toy, clip_file):
    evaluated, trained = [], []

    class Watched(EmaTeacher):
        def before_epoch(self, position):
            trained.append(self.prompt.words.detach().clone())

        def rank(self, *args):
            if not self.training and len(args) > 2:
                evaluated.append(self.prompt.words.detach().clone())
            return super().rank(*args)

        def after_epoch(self, position):
            trained.append(self.prompt.words.detach().clone())
            self.average_now = self.teacher.tensors()["prompt.words"].clone()
            evaluated.clear()

    method, _ = run(Watched, select="last", epochs=2)
    assert torch.equal(evaluated[-1], method.average_now)
    assert torch.equal(trained[1], trained[2])  # the learned words of epoch 1 are those that epoch 2 starts from
    assert not torch.equal(trained[1], evaluated[-1])
    assert torch.equal(method.prompt.words, method.average_now)  # the kept weights are the evaluated ones


def test_an_average_is_that_of_a_naive_loop():
    torch.manual_seed(0)
    layer = nn.Linear(2, 1)
    average, expected = AveragedWeights(layer, decay=0.9), layer.weight.detach().clone()
    for n in range(40):
        with torch.no_grad():
            layer.weight.add_(torch.randn(1, 2))
        average.update(layer)
        decay = min(0.9, (1 + n) / (10 + n))
        expected = decay * expected + (1 - decay) * layer.weight.detach()
    torch.testing.assert_close(average.tensors()["weight"], expected)
    with pytest.raises(ValueError, match=r"decay is 1\.5, expected a number from 0 to 1"):
        AveragedWeights(layer, decay=1.5)


def test_a_parameter_that_learns_later_keeps_the_weights_of_the_best_epoch(run, toy, clip_file):
    first = LateUnfreezing(clip_file, toy.space).late.clone()
    last, _ = run(LateUnfreezing, "last", select="last", epochs=3)
    assert not torch.equal(last.late, first)
    one, _ = run(LateUnfreezing, "one", select="last", epochs=1)
    assert torch.equal(one.late, first)
    assert "late" in learned_state(one)


def test_hooks_are_called_in_their_order(run):
    calls = []

    class Calls(Csp):
        def before_epoch(self, position):
            calls.append(("before epoch", position))

        def after_epoch(self, position):
            calls.append(("after epoch", position))

        def before_step(self, position):
            calls.append(("before step", position))

        def after_step(self, position):
            calls.append(("after step", position))

    run(Calls, epochs=2, accumulation=2)  # 8 + 8 and 5 images in a step
    expected = []
    for epoch in (0, 1):
        expected.append(("before epoch", TrainingPosition(epoch, 2, 0, 2)))
        for step in (0, 1):
            expected.append(("before step", TrainingPosition(epoch, 2, step, 2)))
            expected.append(("after step", TrainingPosition(epoch, 2, step + 1, 2)))
        expected.append(("after epoch", TrainingPosition(epoch, 2, 2, 2)))
    assert calls == expected


def test_warm_up_and_schedule_go_step_by_step(run):
    rates = []

    real = one_epoch.Trainer._step

    def step(self):
        rates.append(self.optimizers[0].param_groups[0]["lr"])
        real(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(one_epoch.Trainer, "_step", step)
        settings = {"schedule": "cosine", "schedule_by": "step", "warmup_epochs": 1.5}
        _, record = run(Csp, epochs=3, lr=1.0, **settings)
    at = torch.arange(9) / 3
    expected = (0.5 * (1 + torch.cos(torch.pi * at / 3))) * ((at + 1 / 3) / 1.5).clamp(max=1)
    assert rates == pytest.approx(expected.tolist(), rel=1e-5)
    assert [row["lr"] for row in record.history] == pytest.approx(expected[[2, 5, 8]].tolist(), rel=1e-5)


def test_gradients_are_clipped_to_the_norm(run):
    norms = []
    real = torch.optim.Adam.step

    def step(self, closure=None):
        norms.append(self.param_groups[0]["params"][0].grad.norm().item())
        return real(self, closure)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.optim.Adam, "step", step)
        run(Csp, "free", epochs=1)
        free = list(norms)
        norms.clear()
        run(Csp, "clipped", epochs=1, clip_norm=0.5 * free[0])
    assert norms[0] == pytest.approx(0.5 * free[0], rel=1e-3)


class UnusedParameter(Csp):
    def __init__(self, clip_file, space):
        super().__init__(clip_file, space)
        self.memory = nn.Linear(2, 2)


def test_a_parameter_without_a_gradient_is_named(run):
    message = (
        r"trainable parameters of UnusedParameter had no gradient in the first epoch, so they never learn: "
        r"memory\.weight, memory\.bias\. Use them in the loss"
    )
    with pytest.raises(TrainingError, match=message):
        run(UnusedParameter)


def test_a_parameter_may_be_declared_to_lack_a_gradient(run):
    class Declared(UnusedParameter):
        may_lack_gradient = ("memory.*",)

    _, record = run(Declared, epochs=1)
    assert record.epochs == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"parameter_groups": lambda self: []}, r"of Changed are in no group of parameter_groups\(\): prompt\.words"),
        (
            {"parameter_groups": lambda self: 2 * [{"params": self.prompt.words}]},
            r"of Changed are in several groups of parameter_groups\(\): prompt\.words; expected exactly one",
        ),
        (
            {"parameter_groups": lambda self: [{"params": self.prompt.words, "lr": 1.0}]},
            r"a group of Changed\.parameter_groups\(\) has lr=1\.0; give lr_scale",
        ),
        (
            {"parameter_groups": lambda self: [{"params": self.prompt.words, "optimizer": "sdg"}]},
            r"Changed\.parameter_groups\(\) asks for the optimiser 'sdg', expected one of adam, adamw, adamw_bert, sgd",
        ),
        (
            {"before_epoch": lambda self, position: self.backbone.requires_grad_(True)},
            r"trainable parameters of Changed are in no group of parameter_groups\(\): backbone\.clip",
        ),
        (
            {"sample_order": lambda self, data, epoch, generator: torch.tensor([0.5])},
            r"Changed\.sample_order\(\) returned torch\.float32 \[1\], expected indices of training images, \[n\] long",
        ),
        (
            {"sample_order": lambda self, data, epoch, generator: torch.tensor([0, 21])},
            r"returned torch\.int64 \[2\] with values from 0 to 21, expected .* from 0 to 20",
        ),
        (
            {"companions": lambda self, data, index, generator: {"x": index - 2}},
            r"Changed\.companions\(\) returned for 'x' torch\.int64 \[8\] with values from -2 to .* or -1 for no image",
        ),
        (
            {"evaluation_weights": lambda self: {"prompt.word": self.prompt.words}},
            r"Changed\.evaluation_weights\(\) has prompt\.word of shape \[\d+, 64\]; found no learned tensor",
        ),
        (
            {"evaluation_weights": lambda self: {"prompt.words": self.prompt.words[1:]}},
            r"has prompt\.words of shape \[\d+, 64\]; found shape \[\d+, 64\] there",
        ),
        (
            {"loss": lambda self, batch, pairs: self(batch.images, self.text(pairs)).pair},
            r"the loss of Changed is shape \[8, \d+\], expected a tensor with one number, or a dict of them",
        ),
        ({"loss": lambda self, batch, pairs: {}}, r"the loss of Changed is \{\}, expected a tensor with one number"),
        (
            {"loss": lambda self, batch, pairs: {"a": self.prompt.words.sum() * torch.nan}},
            r"the loss is nan at epoch 1, step 1 of 3; the learning rate was 0\.01",
        ),
    ],
)
def test_a_wrong_hook_is_an_error_that_names_the_method(run, change, message):
    with pytest.raises(TrainingError, match=message):
        run(type("Changed", (Csp,), change))


def test_epochs_are_selected_by_the_loss_of_the_method(run, toy):
    class Doubled(Csp):
        def loss(self, batch, pairs):
            return 2 * super().loss(batch, pairs) + 1

    own, _ = run(Doubled, "own", select="loss", epochs=1)
    feed, pairs = Feed(own, toy.val, 8), toy.space.pairs
    doubled = validation_loss(own, feed, pairs)
    own.__class__ = Csp
    assert doubled == pytest.approx(2 * validation_loss(own, feed, pairs) + 1, rel=1e-5)
    _, record = run(Doubled, "own", select="loss", epochs=1)
    assert record.history[0]["val_loss"] == pytest.approx(doubled, rel=1e-5)


def test_a_loss_of_its_own_has_no_fused_scores(run):
    class Own(Csp):
        def loss(self, batch, pairs):
            return super().loss(batch, pairs)

    with pytest.raises(ConfigError, match=r"Own has a loss of its own, which has no fused scores: set train\.fused"):
        run(Own, select="loss", fused_validation_loss=True)


@pytest.mark.parametrize("part", ["prompt", "head", "aggregator", "interaction", "backbone"])
def test_a_function_as_a_part_is_refused(clip_file, toy, part):
    backbone = load_backbone(str(clip_file))
    parts = {"backbone": backbone, "prompt": SoftPrompt(backbone, toy.space), "head": CosineHead(backbone.scale)}
    with pytest.raises(ValueError, match=rf"the {part} of Method is <function .* expected a torch\.nn\.Module"):
        Method(space=toy.space, **(parts | {part: lambda *a: None}))
