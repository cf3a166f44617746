"""Translate the tensor names and settings of a method's authors to the names in this package."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from .errors import did_you_mean

State = Mapping[str, Tensor]
Names = Mapping[str, str | Callable[[re.Match[str]], str]]
#: Keys of the authors' configurations that do not change the function of a checkpoint: training, logging, paths,
#: evaluation, and sizes that follow from the shapes of the checkpoint.
IGNORED_KEYS = frozenset(
    """
    K SA_K adversarial_loss_weight attr_dropout best_model_metric bias clip_arch clip_model cmt_layers
    context_length covariance_loss_weight cross_attn_dropout dataset dataset_path epoch_start epochs
    eval_batch_size experiment_name feasibility_file fusion_dropout gamma gradient_accumulation_steps init_lamda
    load_model local_feature_add lr model_name num_workers open_world optimizer prim_loss_weight prompt_template
    res_w same_prim_sample sampling_rate save_every_n save_final_model save_model save_path scheduler seed
    step_size text_encoder_batch_size text_first threshold threshold_high threshold_low threshold_trials topk
    train_batch_size val_metric weight_decay width_img width_txt yml_path
    """.split()  # noqa: SIM905
)


@dataclass(frozen=True)
class Translation:
    """The names that the authors of a method use for our tensors and options.

    Args:
        names: regular expressions and their substitutes. They are applied in order to the name of one of our learned
            tensors, and result in the authors' name.
        unused: regular expression of tensors that the authors' program declares and never uses.
        settings: our option for each key of the authors' YAML; ``option.i`` is value ``i`` of a tuple.
        from_settings: function from the authors' YAML to options that no single key determines.
        fixed: keys of the authors' YAML with only one valid value, and this value.
        needs: keys of the authors' YAML that have an effect only if another key is true, and this other key.
        required_config: keys of the authors' YAML that change scores and that tensor shapes do not determine. If such a
            key is missing, our default is used and a message is logged.
        sizes: function from the authors' tensors to the options that their shapes determine.
        ignored: further keys of the authors' YAML that do not change the function of a checkpoint.
        sections: the parts of the authors' checkpoint that are tensors, or dicts of tensors, by name, with the name or
            the prefix that they get; other parts, such as the epoch, are left out. Without it, the checkpoint is a dict
            of tensors.
        inside_clip: regular expression of tensors of the method, by the authors' name without the prefix of their CLIP,
            that are among those of CLIP.
        encoder: prefix of the tensors of an image encoder that is no CLIP; empty for methods with a CLIP.
        encoder_heads: our option with the number of attention heads of this encoder; empty if it has no such option.
        features: for methods without a CLIP, the function from the authors' tensors to the width of image features.
        not_saved: regular expression of our learned tensors, by our name, that the authors' checkpoint does not hold,
            such as word vectors.
    """

    names: Names
    unused: str = r"$^"
    settings: Mapping[str, str] = field(default_factory=dict)
    from_settings: Callable[[Mapping[str, Any]], dict[str, Any]] = lambda config: {}
    fixed: Mapping[str, Any] = field(default_factory=dict)
    needs: Mapping[str, str] = field(default_factory=dict)
    required_config: tuple[str, ...] = ()
    sizes: Callable[[State], dict[str, Any]] = lambda state: {}
    ignored: tuple[str, ...] = ()
    sections: Mapping[str, str] = field(default_factory=dict)
    inside_clip: str = r"$^"
    encoder: str = ""
    encoder_heads: str = ""
    features: Callable[[State], int] = lambda state: 0
    not_saved: str = r"$^"

    def to_author_key(self, name: str) -> str:
        """Return the authors' name of our tensor ``name``."""
        for pattern, substitute in self.names.items():
            name = re.sub(pattern, substitute, name)
        return name

    def options(self, config: Mapping[str, Any], defaults: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
        """Return our options for the settings of the authors, and a line for every unknown or wrong setting.

        Args:
            config: settings by key of the authors' YAML; names of our options are accepted as well.
            defaults: our options with their defaults.
        """
        options = self.from_settings(config)
        problems = []
        for key, value in config.items():
            if key in self.needs and not config.get(self.needs[key]):
                continue
            if key in self.fixed:
                if value != self.fixed[key]:
                    problems.append(f"{key} is {value!r}, expected {self.fixed[key]!r} for this method")
            elif key in self.settings:
                problems += self._set_option(options, key, value, defaults)
            elif key in defaults and key != "backbone":
                options[key] = value
            elif key not in IGNORED_KEYS and key not in self.ignored:
                known = dict.fromkeys((*self.settings, *self.fixed, *defaults, *IGNORED_KEYS, *self.ignored))
                problems.append(f"{key} is not a setting of the authors' program.{did_you_mean(key, known)}")
        return options, problems

    def _set_option(self, options: dict[str, Any], key: str, value: Any, defaults: Mapping[str, Any]) -> list[str]:
        """Add our option for the authors' ``key`` to ``options``; return a line if the value is wrong."""
        option, _, index = self.settings[key].partition(".")
        if isinstance(defaults[option], str) and isinstance(
            value, list
        ):  # the authors list the context of every branch
            if len({str(words).strip() for words in value}) != 1:
                return [f"{key} is {value!r}, expected the same for every branch"]
            options[option] = str(value[0]).strip()
        elif index:
            values = options.setdefault(option, list(defaults[option]))
            values[int(index)] = value
        else:
            options[option] = value
        return []


def distinct_numbers(state: State, pattern: str) -> int:
    r"""Return the number of distinct values of the group of ``pattern`` in the tensor names of ``state``.

    >>> distinct_numbers(dict.fromkeys(("block.0.weight", "block.0.bias", "block.1.weight")), r"block\.(\d+)\.")
    2
    """
    return len({match[1] for name in state if (match := re.match(pattern, name))})
