"""The numbers of the file format are those of the code that flatbuffers generates from TFLite's schema."""

from __future__ import annotations

import inspect
import re
import sys

import pytest
import tflite

from pilite.compiler import container, schema

GENERATED: dict[type, str] = {
    schema.Model: "Model",
    schema.OperatorCode: "OperatorCode",
    schema.SubGraph: "SubGraph",
    schema.Tensor: "Tensor",
    schema.Quantization: "QuantizationParameters",
    schema.Operator: "Operator",
    schema.Buffer: "Buffer",
    schema.ReshapeOptions: "ReshapeOptions",
    schema.SqueezeOptions: "SqueezeOptions",
}


def generated(table: str) -> dict[str, tuple[int, int]]:
    """Field -> (number, default), from the generated code that writes it."""
    source = inspect.getsource(sys.modules[f"tflite.{table}"])
    found = re.findall(rf"def {table}Add(\w+)\(.*\n.*Slot\((\d+), .*, ([\d.]+)\)", source)
    snake = (re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower() for name, _, _ in found)
    return dict(zip(snake, ((int(n), int(float(default))) for _, n, default in found), strict=True))


@pytest.mark.parametrize("ours", GENERATED, ids=lambda ours: ours.__name__)
def test_field_numbers_are_those_of_the_generated_code(ours: type) -> None:
    fields = {name: value for name, value in vars(ours).items() if not name.startswith("_")}
    numbers = {name: number for name, (number, _) in generated(GENERATED[ours]).items()}
    assert fields.items() <= numbers.items()


WITHOUT_OPTIONS = ("LOGISTIC", "PRELU", "RELU", "RELU6", "RELU_N1_TO_1", "RSQRT", "SQRT", "TANH")


BUILTIN = [op for op, known in schema.OPERATORS.items() if known.code != schema.CUSTOM]


@pytest.mark.parametrize("op", BUILTIN)
def test_operator_codes_and_option_types_are_those_of_the_generated_code(op: str) -> None:
    known = schema.OPERATORS[op]
    types = {value: name for name, value in vars(tflite.BuiltinOptions).items() if isinstance(value, int)}
    assert getattr(tflite.BuiltinOperator, op) == known.code
    assert types[known.options_type].removesuffix("Options") in {
        "AVERAGE_POOL_2D": "Pool2D",
        "L2_NORMALIZATION": "L2Norm",
        "CONV_2D": "Conv2D",
        "DEPTHWISE_CONV_2D": "DepthwiseConv2D",
        "MAX_POOL_2D": "Pool2D",
        **dict.fromkeys(("MEAN", "REDUCE_MAX", "REDUCE_MIN", "SUM"), "Reducer"),
        "BATCH_TO_SPACE_ND": "BatchToSpaceND",
        "SPACE_TO_BATCH_ND": "SpaceToBatchND",
        "PADV2": "PadV2",
        "SELECT_V2": "SelectV2",
        "UNIDIRECTIONAL_SEQUENCE_LSTM": "UnidirectionalSequenceLSTM",
        "MAXIMUM": "MaximumMinimum",
        "MINIMUM": "MaximumMinimum",
        **dict.fromkeys(WITHOUT_OPTIONS, "NONE"),
    }.get(op, op.title().replace("_", ""))


# Our name -> the stored names of one field, or of a pair (h, w).
STORED = {
    "activation": ("fused_activation_function",),
    "stride": ("stride_h", "stride_w"),
    "dilation": ("dilation_h_factor", "dilation_w_factor"),
    "window": ("filter_height", "filter_width"),
    "multiplier": ("depth_multiplier",),
    "block": ("block_size",),
    "edge": ("mode",),
    "bias_type": ("quantized_bias_type",),
}
COUNTS = {"PACK": "values_count", "SPLIT": "num_splits", "SPLIT_V": "num_splits", "UNPACK": "num"}


@pytest.mark.parametrize("op", [op for op, known in schema.OPERATORS.items() if known.fields])
def test_option_fields_are_those_of_the_generated_code(op: str) -> None:
    known = schema.OPERATORS[op]
    tables = {value: name for name, value in vars(tflite.BuiltinOptions).items() if isinstance(value, int)}
    fields = generated(tables[known.options_type])
    for field in known.fields:
        own = {"count": (COUNTS.get(op, ""),), **({"output_type": ("out_type",)} if op == "SHAPE" else {})}
        names = {**STORED, **own}.get(field.attribute, (field.attribute,))
        stored = [fields[name] for name in names]
        assert [(slot, field.default) for slot in field.slots] == stored, field


def test_enumerations_are_those_of_the_generated_code() -> None:
    dtypes = {value: name for name, value in vars(tflite.TensorType).items() if isinstance(value, int)}
    assert [name.upper() for name in schema.DTYPES] == [dtypes[i] for i in range(len(schema.DTYPES))]
    assert [getattr(tflite.Padding, name) for name in schema.PADDINGS] == [0, 1]
    kinds = [getattr(tflite.ActivationFunctionType, name) for name in schema.ACTIVATIONS]
    assert kinds == list(range(6))
    assert schema.operator_name(97) == "RESIZE_NEAREST_NEIGHBOR"
    assert container.NAMES[3] == "CONV_2D"
