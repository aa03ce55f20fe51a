"""Training settings and the two presets.

`paper` follows the paper's text wherever the text is defined; `recommended` keeps the same three modules and repairs
what the literal text leaves broken. Every difference between the two is one setting.
"""

from __future__ import annotations

import dataclasses
import difflib
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ForgettableSegLib.errors import ErrorCode, ForgettableSegError
from ForgettableSegLib.training.allowed_values import CHOICES, RANGES

# Of all channels that are planned where `features` is open, the last are a multiple of this.
PLANNED_WIDTH = 128


@dataclass(frozen=True, kw_only=True)
class TrainingSettings:
    """Everything that decides a training run, besides its cases and its task.

    Args:
        preset: the preset that the other values started from.
        spatial_dims: 2 (slices, as in the paper) or 3 (patches of the volume); None takes 3 where a patch holds the
            median case whole, see `plan_preprocessing`, and nothing else asks for slices.
        patch_size: voxels, one number an axis of the patch; None takes the median slice, in multiples of 16 up to 256,
            or in 3D the median volume in multiples of 8 up to 64 on a processor and 96 on a GPU.
        slice_axis: 0 axial, 1 coronal, 2 sagittal; None takes the axis of the largest spacing, else axial.
        isotropic: resample to one spacing on all axes (the paper) instead of the median of each axis.
        spacing: mm between voxels along z, y, x instead of the median, 0 for each case's own.
        same_grid: refuse cases with a channel or a label on another grid than the first image instead of resampling it.
        architecture: the U-Net of this library, or one to compare it with; text and penultimate features need "unet",
            and "unetr" needs a `patch_size` in multiples of 16.
        context_slices: slices before and after each one that a 2D network sees as further channels.
        features: channels of each level of the U-Net; None takes those that suit the device, see `plan_training`.
        batch_size: patches an iteration, over all ranks together (B); None plans it, and what of the patch is open, by
            memory, processor and time, see `plan_training`.
        iterations, epochs, minutes: the length; minutes wins over epochs, epochs over iterations. An epoch is as many
            iterations as it takes to draw every training slice (2D) once on average.
        optimizer, learning_rate, momentum, weight_decay, gradient_clip: SGD with Nesterov momentum, or AdamW, whose
            first beta `momentum` is.
        schedule, warm_up: the learning rate rises over the share `warm_up` of the training and falls with
            (1 - t/T)^0.9 ("poly") or half a cosine.
        weight_average: decay of an exponential average of the weights, which is then what is validated and exported;
            0 takes the weights themselves.
        deep_supervision: a loss at every level of the decoder but the lowest, each half as heavy as the one above it
            (as nnU-Net's); of the architecture "unet", others have none.
        loss: cross-entropy ("ce"), that plus soft Dice over the batch ("dice_ce"), the same with half of the
            cross-entropy as a mean over the classes ("balanced", for many or small structures), Tversky (0.3 FP,
            0.7 FN), focal (gamma 2), Kervadec's boundary loss, which takes over from "dice_ce" in the course of the
            run, boundary DoU, or "ga_dice_ce", see `gradient_aware_dice_loss` and `gradient_aware_cross_entropy`.
        aux_loss, aux_weight: a loss beside it, and its weight: "scdl" learns a distribution of each class, see
            `ClassDistributions`.
        unlabelled_ratio, consistency_weight, consistency_ramp_up: patches of cases without labels for each labelled
            one, the weight of what is learnt from them, and the share of the training over which it rises, see
            `training.consistency`; the average of the weights is their teacher, so there must be one.
        tgf, pbs, fsb: text-guided fusion, prototype-based scoring, forgettable sample bank: each on or off.
        guidance: what the fusion takes in: the prompts of the classes ("text"), prototypes of what is said of the cases
            ("psa", see `PrototypeFusion`; its fusion is "visual_query"), or nothing.
        fusion, num_heads: how text meets the image, see `TextGuidedFusion`.
        memory, memory_items: a memory of each class at the bottleneck, see `ClassMemory`, and which of its items a
            batch renews, see `MemoryWriter`.
        text, text_model, text_pretrained, text_path, prompt_template: where the text embeddings come from.
        score_mode, score_reduce, score_eps, score_features: see `difficulty_scores`.
        prototypes: running means ("ema"), the distributions that "scdl" has learnt, or the vectors in the "memory" of
            each class, the nearest of which counts.
        prototype_beta, prototype_warm_up, prototype_min_count: see `Prototypes`; nothing enters the bank before every
            class was seen in `prototype_min_count` batches.
        selection, admission, replacement, store, rescore: which samples enter the bank, and which leave it.
        admission_window: quantiles of the recent scores between which the admission "band" lets samples into the bank,
            so no more than its width of them, whatever rho is. What is harder still is a wrong label too often.
        rho: share of a batch that is admitted (n_hard = B * rho, fractions carried over).
        bank_batches: capacity of the bank in batches (P).
        replay_every: iterations between replays (F); None takes `bank_batches`, as the paper's text does.
        replay_weight: weight of the replay loss beside the main loss.
        allow_partial: replay also from a bank that cannot fill a batch yet, with a weight that much smaller; otherwise
            few or small cases would never be replayed.
        foreground_oversampling: share of the patches that is centred on a foreground voxel.
        augmentation: gamma, noise, blur and brightness, as in the paper.
        spatial_augmentation: random rotation and scaling as well.
        strong_augmentation: contrast, low resolution and gamma on the inverted image as well, as nnU-Net has them.
        mirror_axes: axes of the case, its slices first (0) and then rows (1) and columns (2), along which patches are
            mirrored at random; the model then averages over the mirror images of what it segments. In 2D axis 0 needs
            `context_slices`. None takes the axis from side to side, unless the name or the prompt of a class names a
            side.
        synthesis: how images are made from cases that are label maps alone, while training: "head" for whole heads with
            FreeSurfer's label values, "random" for any task, or the path of a JSON file laid out like those in
            Resources/Synthesis; None refuses such cases.
        split_ratios: training, validation and held-out cases.
        seed: same seed, data and machine give the same model.
        device: "auto", "cpu", "mps", "cuda" or "cuda:n".
        mixed_precision: half precision where the device is a GPU; a CPU always runs float32.
        validate_every: iterations between validations; None makes about ten of them in a run.
        checkpoint_every: iterations between checkpoints.
        dynamics: look at whole training cases now and then, without augmentation, to tell what is learnt and forgotten.
        dynamics_every: epochs between looks; None spreads 20 over the run.
        dynamics_share: of the training time that the looks may take; cases take turns where it is not enough for all.
            1 looks at all cases every time, whatever that takes.
        forgetting_maps: also count the forgetting events of every voxel, one byte a voxel of all training cases.
    """

    preset: str = "recommended"
    spatial_dims: int | None = None
    patch_size: tuple[int, ...] | None = None
    slice_axis: int | None = None
    isotropic: bool = False
    spacing: tuple[float, ...] | None = None
    same_grid: bool = False
    context_slices: int = 0
    architecture: str = "unet"
    features: tuple[int, ...] | None = None
    batch_size: int | None = None
    iterations: int = 2000
    epochs: int | None = None
    minutes: float | None = None
    optimizer: str = "adamw"
    learning_rate: float = 0.001
    momentum: float = 0.9
    weight_decay: float = 0.01
    gradient_clip: float = 12.0
    schedule: str = "cosine"
    warm_up: float = 0.03
    weight_average: float = 0.99
    deep_supervision: bool = True
    loss: str = "dice_ce"
    aux_loss: str = "none"
    aux_weight: float = 0.1
    unlabelled_ratio: float = 0.0
    consistency_weight: float = 1.0
    consistency_ramp_up: float = 0.4
    tgf: bool = True
    pbs: bool = True
    fsb: bool = True
    guidance: str = "text"
    fusion: str = "residual"
    num_heads: int = 4
    memory: str = "none"
    memory_items: str = "wld"
    text: str = "auto"
    text_model: str | None = None
    text_pretrained: str | None = None
    text_path: str | None = None
    prompt_template: str | None = None
    score_mode: str = "bounded"
    score_reduce: str = "class"
    score_eps: float = 1.0
    score_features: str = "logits"
    prototypes: str = "ema"
    prototype_beta: float = 0.99
    prototype_warm_up: bool = True
    prototype_min_count: int = 10
    selection: str = "score"
    admission: str = "band"
    admission_window: tuple[float, float] = (0.70, 0.85)
    replacement: str = "random"
    store: str = "reference"
    rescore: bool = True
    rho: float = 0.1
    bank_batches: int = 10
    replay_every: int | None = None
    replay_weight: float = 1.0
    allow_partial: bool = True
    foreground_oversampling: float = 0.33
    augmentation: bool = True
    spatial_augmentation: bool = True
    strong_augmentation: bool = False
    mirror_axes: tuple[int, ...] | None = None
    synthesis: str | None = None
    split_ratios: tuple[int, int, int] = (4, 1, 1)
    seed: int = 0
    device: str = "auto"
    mixed_precision: bool = True
    validate_every: int | None = None
    checkpoint_every: int = 50
    dynamics: bool = True
    dynamics_every: int | None = None
    dynamics_share: float = 0.1
    forgetting_maps: bool = False

    def __post_init__(self) -> None:
        """Check every value.

        Raises:
            ForgettableSegError: SETTING_INVALID, naming the setting, its value and what is allowed.
        """
        for name, allowed in CHOICES.items():
            if (value := getattr(self, name)) not in allowed:
                _refuse(name, value, f"one of {', '.join(allowed)}")
        for name, (lowest, highest) in RANGES.items():
            value = getattr(self, name)
            if value is None:
                continue
            if (lowest is not None and value < lowest) or (highest is not None and value > highest):
                _refuse(name, value, f"at least {lowest:g}" if highest is None else f"from {lowest:g} to {highest:g}")
        if self.spatial_dims not in (None, 2, 3):
            _refuse("spatial_dims", self.spatial_dims, "2 or 3")
        if self.slice_axis not in (None, 0, 1, 2):
            _refuse("slice_axis", self.slice_axis, "0 (axial), 1 (coronal) or 2 (sagittal)")
        dims = (2, 3) if self.spatial_dims is None else (self.spatial_dims,)
        if self.patch_size is not None and (len(self.patch_size) not in dims or min(self.patch_size) < 4):
            _refuse("patch_size", list(self.patch_size), f"{' or '.join(map(str, dims))} numbers of at least 4")
        if self.mirror_axes is not None and len(set(self.mirror_axes) & {0, 1, 2}) < len(self.mirror_axes):
            _refuse("mirror_axes", list(self.mirror_axes), "some of 0, 1 and 2, each once")
        if self.spacing is not None and (len(self.spacing) != 3 or not all(0 <= step <= 1000 for step in self.spacing)):
            _refuse("spacing", list(self.spacing), "three numbers from 0 to 1000 mm")
        if len(self.admission_window) != 2 or not 0 <= self.admission_window[0] < self.admission_window[1] <= 1:
            _refuse("admission_window", list(self.admission_window), "two rising numbers from 0 to 1")
        if self.features is not None and (len(self.features) < 2 or min(self.features) < 1):
            _refuse("features", list(self.features), "at least two positive numbers")
        if len(self.split_ratios) != 3 or min(self.split_ratios) < 0 or self.split_ratios[0] < 1:
            _refuse("split_ratios", list(self.split_ratios), "three numbers, the first at least 1")
        widest = PLANNED_WIDTH if self.features is None else self.features[-1]
        if self.fusion_mode != "none" and widest % self.num_heads:
            _refuse("num_heads", self.num_heads, f"a divisor of the last of features, {widest}")
        self._check_architecture()
        if self.guidance == "psa" and self.synthesis is not None:
            _refuse("guidance", self.guidance, "text or none with synthesis, whose label maps look like no image")
        if self.unlabelled_ratio and not self.weight_average:
            _refuse("unlabelled_ratio", self.unlabelled_ratio, "0 without a weight_average, which is the teacher")
        if self.prototypes == "scdl" and self.aux_loss != "scdl":
            _refuse("prototypes", self.prototypes, "ema without the aux_loss scdl, which learns the distributions")
        if self.prototypes == "memory" and self.memory == "none":
            _refuse("prototypes", self.prototypes, "ema or scdl without a memory")
        if self.prototypes != "ema" and self.score_mode == "paper":
            _refuse("prototypes", self.prototypes, "ema with the score_mode paper, whose prototypes are mean logits")
        if self.fsb and not self.pbs and self.selection not in ("loss", "random", "foreground"):
            _refuse("selection", self.selection, "loss, random or foreground while pbs is off (there are no scores)")

    def _check_architecture(self) -> None:
        if self.architecture == "unet":
            return
        if self.fusion_mode != "none":
            _refuse("architecture", self.architecture, "'unet' where text guides the network (tgf, fusion)")
        if self.context_slices:
            _refuse("context_slices", self.context_slices, f"0 with the architecture '{self.architecture}'")
        if self.pbs and self.score_features == "penultimate":
            _refuse("score_features", self.score_features, f"logits with the architecture '{self.architecture}'")
        if self.aux_loss != "none":
            _refuse("aux_loss", self.aux_loss, f"none with the architecture '{self.architecture}'")
        if self.memory != "none":
            _refuse("memory", self.memory, f"none with the architecture '{self.architecture}'")
        if self.architecture == "unetr" and (self.patch_size is None or any(n % 16 for n in self.patch_size)):
            _refuse("patch_size", self.patch_size, "multiples of 16 with the architecture 'unetr'")

    @property
    def wanted_dims(self) -> int | None:
        """2 or 3 where the settings say or imply it, else None."""
        if self.spatial_dims is None and self.patch_size is not None:
            return len(self.patch_size)
        in_slices = self.slice_axis is not None or self.context_slices or self.isotropic
        return 2 if self.spatial_dims is None and in_slices else self.spatial_dims

    @property
    def bank_capacity(self) -> int:
        """Samples that the bank holds at most: P * B, once B is planned."""
        return self.bank_batches * self.batch_size

    @property
    def replay_period(self) -> int:
        """Iterations between replays: F, or P where F is not set."""
        return self.replay_every or self.bank_batches

    @property
    def has_own_prototypes(self) -> bool:
        """Whether scores compare with what only this very network has learnt, and not with its logits."""
        return self.pbs and (self.score_features == "penultimate" or self.prototypes != "ema")

    @property
    def fusion_mode(self) -> str:
        """The fusion that the network is built with; "none" where text-guided fusion is off."""
        if not self.tgf or self.guidance == "none":
            return "none"
        return "visual_query" if self.guidance == "psa" else self.fusion

    def to_dict(self) -> dict[str, Any]:
        """The settings as JSON types."""
        return {
            name: list(value) if isinstance(value, tuple) else value for name, value in dataclasses.asdict(self).items()
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> TrainingSettings:
        """Settings of a preset with some values replaced.

        Args:
            values: setting names and JSON values; `preset` picks what the others start from.

        Raises:
            ForgettableSegError: SETTING_INVALID for an unknown name, a wrong type or a value out of range.
        """
        check_names(values)
        fields = {field.name: field for field in dataclasses.fields(cls)}
        converted = {name: _convert(name, fields[name].type, value) for name, value in values.items()}
        preset = converted.get("preset", "recommended")
        if preset not in PRESETS:
            _refuse("preset", preset, f"one of {', '.join(PRESETS)}")
        return cls(**{**PRESETS[preset], **converted})


def check_names(values: Mapping[str, Any]) -> None:
    """Refuse what is no setting, before anything else is looked at.

    Raises:
        ForgettableSegError: SETTING_INVALID, with the nearest name that there is.
    """
    known = [field.name for field in dataclasses.fields(TrainingSettings)]
    if unknown := sorted(set(values) - set(known)):
        msg = f"There is no training setting named '{unknown[0]}'."
        (near,) = difflib.get_close_matches(str(unknown[0]), known, n=1, cutoff=0)
        hint = f"Did you mean '{near}'? Documentation/settings.md tells of all of them."
        raise ForgettableSegError(ErrorCode.SETTING_INVALID, msg, hint=hint)


PRESETS: dict[str, dict[str, Any]] = {
    "recommended": {},
    "paper": {
        "preset": "paper",
        "spatial_dims": 2,
        "mirror_axes": (),
        "features": (32, 32, 64, 128, 256),
        "batch_size": 32,
        "optimizer": "sgd",
        "learning_rate": 0.01,
        "momentum": 0.95,
        "weight_decay": 3e-5,
        "schedule": "poly",
        "warm_up": 0.0,
        "weight_average": 0.0,
        "deep_supervision": False,
        "isotropic": True,
        "loss": "ce",
        "fusion": "residual",
        "score_mode": "paper",
        "score_reduce": "pixel",
        "prototype_warm_up": False,
        "prototype_min_count": 0,
        "admission": "topk",
        "replacement": "random",
        "store": "patch",
        "rescore": False,
        "allow_partial": False,
        "foreground_oversampling": 0.0,
        "spatial_augmentation": False,
    },
}


def _refuse(name: str, value: Any, allowed: str) -> None:
    msg = f"The training setting '{name}' is {value!r}, but must be {allowed}."
    raise ForgettableSegError(ErrorCode.SETTING_INVALID, msg)


def _convert(name: str, annotation: str, value: Any) -> Any:
    """A JSON value as the type that the field declares (annotations are strings under `from __future__`)."""
    if value is None:
        if "None" in annotation:
            return None
        _refuse(name, value, "a value")
    kind = annotation.split(" | ")[0]
    item_kind = "float" if "float" in kind else "int"
    # What no float can hold is no number here, and neither are NaN and infinity.
    is_number = isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max
    if kind == "bool" and isinstance(value, bool):
        return value
    if kind == "int" and is_number and float(value).is_integer():
        return int(value)
    if kind == "float" and is_number:
        return float(value)
    if kind == "str" and isinstance(value, str):
        return value
    if kind.startswith("tuple") and isinstance(value, Sequence) and not isinstance(value, str):
        return tuple(_convert(name, item_kind, item) for item in value)
    words = {"bool": "true or false", "int": "a whole number", "float": "a number", "str": "a text"}
    return _refuse(name, value, words.get(kind, f"a list of {'' if item_kind == 'float' else 'whole '}numbers"))
