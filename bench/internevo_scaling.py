"""InternEvo's own scaling table, predicted: why ZeRO inside a node scales and over the whole data axis does not.

`python bench/internevo_scaling.py`. 7B of the first InternLM on A100 nodes with 4 x 100 Gb/s, sequences of 2,048, four
micro-batches of two; tokens/s/GPU as published in InternEvo's doc/en/train_performance.md.
"""

from dataclasses import replace

import msgspec

from trainwright.compiler.cost.case import Case, ModelShape, even_part
from trainwright.compiler.cost.time import step_time
from trainwright.spec.device import HardwareFile, load_hardware
from trainwright.spec.plan import StepTime

GPUS = (8, 16, 32, 64, 128, 256, 512, 1024)
WHOLE_AXIS = (4062, 3842, 3752, 3690, 3571, 3209, 2861, 2271)  # zero1 = -1
SUB_GROUP = (4078, 3939, 3919, 3944, 3928, 3920, 3835, 3625)  # zero1 = 8
NETWORK_BYTES_PER_S = 6.25e9  # 4 x 100 Gb/s a node of 8

MODEL = ModelShape(
    layers=32,
    hidden_size=4096,
    heads=32,
    kv_heads=32,
    head_size=128,
    ffn_size=11_008,
    vocab_size=103_168,
    bias=True,
)
CASE = Case(
    model=MODEL, sequence_length=2048, micro_batch=2, micro_batches=4, zero=1, framework="internevo", gpus_per_node=8
)


def cluster() -> HardwareFile:
    device = load_hardware("a100-80gb")
    assert device is not None
    assert device.links.network is not None
    network = msgspec.structs.replace(device.links.network, bytes_per_s=NETWORK_BYTES_PER_S)
    return msgspec.structs.replace(device, links=msgspec.structs.replace(device.links, network=network))


def predict(gpus: int, group: int, hardware: HardwareFile) -> StepTime:
    case = replace(CASE, data=gpus, zero_group=group)
    return step_time(case, (even_part(case, 0),), hardware)


def main() -> None:
    hardware = cluster()
    tokens = CASE.micro_batch * CASE.micro_batches * CASE.sequence_length
    print("tokens/s/GPU, planned (published), and the seconds of a step in which the exchange of ZeRO shows")
    print(f"{'GPUs':>5}  {'over the whole axis':>30}   {'in groups of 8':>30}")
    for gpus, whole, grouped in zip(GPUS, WHOLE_AXIS, SUB_GROUP, strict=True):
        line = f"{gpus:5}"
        for group, published in ((gpus, whole), (8, grouped)):
            step = predict(gpus, group, hardware)
            shown = step.parts["gradient reduction"] + step.parts["parameter gather"]
            line += f"  {tokens / step.time_s:6.0f} ({published}) {shown:10.2f} s"
        print(line)


if __name__ == "__main__":
    main()
